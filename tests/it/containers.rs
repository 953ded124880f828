//! The commands of docker-compose.yml and Dockerfile against the program they start.

use crate::harness::{App, AppBuilder, temp_dir};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn compose_service() -> Value {
    let compose: Value = serde_saphyr::from_str(&file("docker-compose.yml")).unwrap();
    compose["services"]["app"].clone()
}

/// With the variables of the compose file that do not name other services.
fn as_in_compose(mut app: AppBuilder) -> AppBuilder {
    for (name, value) in compose_service()["environment"].as_object().unwrap() {
        if name.starts_with("ECLUSA__") {
            app = app.env(name, value.as_str().unwrap());
        }
    }
    app
}

fn port(app: &App) -> String {
    app.url().rsplit(':').next().unwrap().to_owned()
}

/// Runs the command that an orchestrator would run in the container.
fn succeeds(command: &[String], port: &str) -> bool {
    let (program, arguments) = command.split_first().unwrap();
    let status = Command::new(program)
        .args(arguments)
        .env("PORT", port)
        .status();
    status.unwrap().success()
}

#[tokio::test]
async fn the_health_checks_of_compose_file_and_image_pass() {
    let dir = temp_dir("containers-");
    let app = as_in_compose(App::builder().embedded(dir.path()));
    let mut app = app.start().await;
    app.wait_ready().await;
    let port = port(&app);

    let test = compose_service()["healthcheck"]["test"].clone();
    let words: Vec<&str> = test
        .as_array()
        .unwrap()
        .iter()
        .flat_map(Value::as_str)
        .collect();
    assert_eq!(words[0], "CMD");
    let compose: Vec<String> = words[1..]
        .iter()
        .map(|word| {
            word.replace("$$", "$")
                .replace("/3000", &format!("/{port}"))
        })
        .collect();
    let image = file("Dockerfile");
    let after = image.split_once("HEALTHCHECK").unwrap().1;
    let line = after.split_once("CMD ").unwrap().1.lines().next().unwrap();
    let image: Vec<String> = serde_json::from_str(line).unwrap();
    for command in [&compose, &image] {
        let (command, port) = (command.clone(), port.clone());
        let passed = tokio::task::spawn_blocking(move || succeeds(&command, &port)).await;
        assert!(passed.unwrap());
    }
    // They fail where nothing answers.
    app.kill9();
    app.wait_exit(std::time::Duration::from_secs(20)).await;
    for command in [compose, image] {
        let port = port.clone();
        let passed = tokio::task::spawn_blocking(move || succeeds(&command, &port)).await;
        assert!(!passed.unwrap());
    }
}

#[tokio::test]
async fn other_containers_reach_the_service_by_its_name() {
    let dir = temp_dir("containers-");
    let app = as_in_compose(App::builder().embedded(dir.path()))
        .start()
        .await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |path: &str, host: &str| {
        let request = client.get(format!("{}{path}", app.url()));
        let response = request.header("host", host).send().await.unwrap();
        response.status().as_u16()
    };
    for path in ["/v1/events", "/metrics"] {
        assert_eq!(status(path, "app:3000").await, 200, "{path}");
        assert_eq!(status(path, "localhost:3000").await, 200, "{path}");
        assert_eq!(status(path, "evil.example:3000").await, 403, "{path}");
    }
}

/// The command at the head of the Dockerfile has all settings that the image needs.
#[test]
fn the_command_of_the_dockerfile_has_the_settings_that_the_image_needs() {
    let text = file("Dockerfile");
    let head: String = text
        .lines()
        .take_while(|line| line.starts_with('#'))
        .collect();
    let mut variables = vec![("ECLUSA__HTTP__BIND", "0.0.0.0".to_owned())];
    for part in head.split("-e ").skip(1) {
        let (name, value) = part.split_once('=').unwrap();
        let value = value.split_whitespace().next().unwrap();
        variables.push((name, value.trim_matches('\'').to_owned()));
    }
    let dir = temp_dir("containers-");
    let output = crate::harness::eclusa(&["config", "check"])
        .envs(variables)
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", crate::harness::told(&output));
}
