//! The manifests in deploy/kubernetes against the program they start. Their shape is checked with a
//! schema validator (see the README there); this is about what no schema knows.

use crate::harness::{App, temp_dir};
use eclusa::config::Sources;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes")
}

fn manifest(path: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(path)).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    let found = value.pointer(pointer);
    found.unwrap_or_else(|| panic!("no {pointer} in {value:#}"))
}

fn container() -> Value {
    at(
        &manifest("deployment.yaml"),
        "/spec/template/spec/containers/0",
    )
    .clone()
}

fn settings_file() -> String {
    let map = manifest("configmap.yaml");
    map["data"]["eclusa.toml"].as_str().unwrap().to_owned()
}

/// What the container's variables hold, with something plausible for each secret.
fn environment(container: &Value) -> BTreeMap<String, String> {
    let secrets = BTreeMap::from([
        ("database-url", "postgres://u:p@h/d"),
        ("rabbitmq-url", "amqp://u:p@h/v"),
    ]);
    let variables = container["env"].as_array().unwrap().iter();
    variables
        .map(|variable| {
            let secret = variable.pointer("/valueFrom/secretKeyRef/key");
            let value = match secret {
                Some(key) => secrets[key.as_str().unwrap()],
                None => variable["value"].as_str().unwrap(),
            };
            (
                variable["name"].as_str().unwrap().to_owned(),
                value.to_owned(),
            )
        })
        .collect()
}

/// `eclusa ARGUMENTS config check` as the container would do it.
fn config_check(environment: BTreeMap<String, String>, arguments: &[&str]) -> (bool, String) {
    let dir = temp_dir("manifests-");
    let output = Command::new(env!("CARGO_BIN_EXE_eclusa"))
        .args(arguments)
        .args(["config", "check"])
        .env_clear()
        .envs(environment)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

#[test]
fn every_resource_that_is_listed_is_there_and_has_a_name() {
    for base in ["", "migrate/", "hpa/", "keda/"] {
        let list = manifest(&format!("{base}kustomization.yaml"));
        for resource in list["resources"].as_array().unwrap() {
            let found = manifest(&format!("{base}{}", resource.as_str().unwrap()));
            assert!(found["metadata"]["name"].is_string(), "{found:#}");
            assert!(found["metadata"]["namespace"].is_null(), "{found:#}");
        }
    }
}

#[test]
fn the_settings_are_in_order_with_the_variables_of_the_container() {
    let dir = temp_dir("manifests-");
    let file = dir.path().join("eclusa.toml");
    std::fs::write(&file, settings_file()).unwrap();
    let file = file.to_str().unwrap();
    let arguments = container()["args"].clone();
    assert_eq!(arguments[0], "--config");
    let mounted = Path::new(arguments[1].as_str().unwrap());
    let volume = &container()["volumeMounts"][0];
    assert_eq!(
        mounted.parent().unwrap().to_str(),
        volume["mountPath"].as_str()
    );
    let (fine, said) = config_check(environment(&container()), &["--config", file]);
    assert!(fine && said.contains("mode full"), "{said}");
    // A variable under a name that nobody reads would be no address at all.
    let (fine, said) = config_check(BTreeMap::new(), &["--config", file]);
    assert!(
        !fine && said.contains("DATABASE_URL") && said.contains("RABBITMQ_URL"),
        "{said}"
    );

    let job = manifest("migrate/job.yaml");
    let migrate = at(&job, "/spec/template/spec/containers/0");
    assert_eq!(migrate["args"][0], "migrate");
    let (fine, said) = config_check(environment(migrate), &[]);
    assert!(fine && said.contains("mode database"), "{said}");
}

#[test]
fn a_pod_may_take_as_long_as_a_shutdown_and_a_start_take() {
    // The addresses come from the environment.
    let text = settings_file().replace("[store]", "[store]\nurl = \"postgres://u@h/d\"");
    let text = format!("{text}\n[broker]\nurl = \"amqp://h\"\n");
    let settings = Sources::from_text(&text).load().unwrap();
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().unwrap());
    let deployment = manifest("deployment.yaml");
    let pod = at(&deployment, "/spec/template/spec");
    let needed = settings.shutdown.grace + settings.shutdown.deadline + Duration::from_secs(5);
    assert!(seconds(&pod["terminationGracePeriodSeconds"]) >= needed);

    let startup = container()["startupProbe"].clone();
    let tries = u32::try_from(startup["failureThreshold"].as_u64().unwrap()).unwrap();
    assert!(seconds(&startup["periodSeconds"]) * tries > settings.store.startup_wait);
    // It would be out of the load balancer before it stops serving.
    let readiness = container()["readinessProbe"].clone();
    let out = seconds(&readiness["periodSeconds"])
        * u32::try_from(readiness["failureThreshold"].as_u64().unwrap()).unwrap();
    assert!(settings.shutdown.grace >= out);
    // The root file system is read-only, and nothing but the embedded mode writes files.
    assert_eq!(
        container()["securityContext"]["readOnlyRootFilesystem"],
        true
    );
    assert_eq!(settings.mode(), eclusa::config::Mode::Full);

    let port = &container()["ports"][0];
    assert_eq!(port["containerPort"], settings.http.port);
    let service = manifest("service.yaml");
    assert_eq!(at(&service, "/spec/ports/0/targetPort"), &port["name"]);
    let monitor = manifest("monitoring/servicemonitor.yaml");
    assert_eq!(
        at(&monitor, "/spec/endpoints/0/port"),
        at(&service, "/spec/ports/0/name")
    );

    // Autoscaling looks at the queue that is consumed, in both ways.
    let hpa = manifest("hpa/hpa.yaml");
    let external = at(
        &hpa,
        "/spec/metrics/0/external/metric/selector/matchLabels/queue",
    );
    let keda = manifest("keda/scaledobject.yaml");
    let trigger = at(&keda, "/spec/triggers/0/metadata");
    assert_eq!(external, &Value::from(settings.broker.queue.as_str()));
    assert_eq!(trigger["queueName"], settings.broker.queue.as_str());
    let variable = trigger["hostFromEnv"].as_str().unwrap();
    assert!(environment(&container()).contains_key(variable));
}

#[test]
fn the_objects_find_each_other() {
    let deployment = manifest("deployment.yaml");
    let labels = at(&deployment, "/spec/template/metadata/labels");
    let budget = manifest("poddisruptionbudget.yaml");
    for (object, pointer) in [
        (&deployment, "/spec/selector/matchLabels"),
        (&budget, "/spec/selector/matchLabels"),
        (&manifest("service.yaml"), "/spec/selector"),
    ] {
        assert_eq!(at(object, pointer), labels, "{pointer}");
    }
    // The job's pod must not be sent requests.
    let job = manifest("migrate/job.yaml");
    assert_ne!(at(&job, "/spec/template/metadata/labels"), labels);
    // A drain must be able to go on, and to leave somebody who serves.
    let replicas = at(&deployment, "/spec/replicas").as_u64().unwrap();
    let out = at(&budget, "/spec/maxUnavailable").as_u64().unwrap();
    assert!(out >= 1 && out < replicas);
    let name = at(&deployment, "/metadata/name");
    assert_eq!(
        at(&manifest("hpa/hpa.yaml"), "/spec/scaleTargetRef/name"),
        name
    );
    assert_eq!(
        at(
            &manifest("keda/scaledobject.yaml"),
            "/spec/scaleTargetRef/name"
        ),
        name
    );
    let map = at(&deployment, "/spec/template/spec/volumes/0/configMap/name");
    assert_eq!(map, at(&manifest("configmap.yaml"), "/metadata/name"));
}

#[tokio::test]
async fn the_probes_ask_for_what_is_served_without_a_key() {
    let dir = temp_dir("manifests-");
    let hash = format!("sha256:{}", "0".repeat(64));
    let key = serde_json::json!({"name": "k", "hash": hash, "scopes": ["admin"]});
    let app = App::builder()
        .embedded(dir.path())
        .set("auth.keys", serde_json::json!([key]))
        .start()
        .await;
    assert_eq!(app.get("/v1/events").await.status(), 401);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let path = container()[probe]["httpGet"]["path"].clone();
        assert_eq!(
            app.get(path.as_str().unwrap()).await.status(),
            200,
            "{probe}"
        );
    }
    let monitor = manifest("monitoring/servicemonitor.yaml");
    let path = at(&monitor, "/spec/endpoints/0/path").as_str().unwrap();
    assert_eq!(app.get(path).await.status(), 200);
}
