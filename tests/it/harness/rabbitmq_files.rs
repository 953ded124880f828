//! What a private RabbitMQ node needs on disk and in its environment, so that it shares nothing
//! with another node on the same machine and starts quickly.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::free_port;
use super::process::Owner;

const COOKIE: &str = "ECLUSAINTEGRATIONTESTS";

/// One node's folder, name and ports.
pub struct Node {
    pub folder: PathBuf,
    pub amqp_port: u16,
    pub epmd_port: u16,
    pub tls_port: Option<u16>,
    distribution_port: u16,
    name: String,
    home: PathBuf,
}

impl Node {
    pub fn create(folder: &Path, owner: &Owner, tls: bool) -> Self {
        let amqp_port = free_port();
        let node = Self {
            folder: folder.to_owned(),
            amqp_port,
            epmd_port: free_port(),
            tls_port: tls.then(free_port),
            distribution_port: free_port(),
            // `localhost` always resolves; this machine's own name might not.
            name: format!("eclusa_{amqp_port}@localhost"),
            home: slim_installation(folder),
        };
        if tls {
            node.make_certificate(owner);
        }
        node.write("rabbitmq.conf", &node.config());
        // Also keeps the files below /etc/rabbitmq out: they are the machine's, not the tests'.
        node.write("env.conf", "");
        node.write("advanced.config", "[].\n");
        node.write("enabled_plugins", "[].\n");
        node.write(".erlang.cookie", COOKIE);
        let cookie = folder.join(".erlang.cookie");
        fs::set_permissions(&cookie, Permissions::from_mode(0o400)).expect("own file");
        owner.take(&cookie);
        owner.take(folder);
        node
    }

    /// The certificate of the TLS listener, for `localhost`, signed by itself.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    fn make_certificate(&self, owner: &Owner) {
        let (certificate, key) = (self.certificate(), self.key());
        let output = Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args(["-subj", "/CN=localhost", "-addext"])
            .args(["subjectAltName=DNS:localhost", "-addext"])
            .args(["basicConstraints=critical,CA:FALSE", "-out"])
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key)
            .output()
            .expect("openssl is installed");
        assert!(
            output.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        owner.take(&key);
        owner.take(&certificate);
    }

    /// A script of the installation, as `rabbitmq-server` or `rabbitmqctl`.
    pub fn script(&self, name: &str) -> Command {
        let mut command = self.command(self.home.join("sbin").join(name));
        let file = |name: &str| self.folder.join(name);
        command
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", file("env.conf"))
            .env("RABBITMQ_CONFIG_FILE", file("rabbitmq"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins"))
            .env("RABBITMQ_FEATURE_FLAGS_FILE", file("feature_flags"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", file("generated"))
            .env("RABBITMQ_MNESIA_BASE", file("data"))
            .env("RABBITMQ_LOG_BASE", file("log"))
            .env("RABBITMQ_PID_FILE", file("node_pid"));
        command
    }

    /// Erlang's port mapper, in the foreground: left to itself the node starts one that outlives it.
    pub fn epmd(&self) -> Command {
        let mut command = self.command("epmd");
        command.args(["-address", "127.0.0.1"]);
        command.args(["-port", &self.epmd_port.to_string()]);
        command
    }

    /// Evaluates Erlang within the node, from standard input, in milliseconds; `rabbitmqctl eval`
    /// starts a virtual machine for it and takes half a second.
    pub fn erl_call(&self) -> Command {
        let mut command = self.command("erl_call");
        command.args(["-sname", &self.name, "-c", COOKIE, "-e"]);
        command
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8")
            .env("HOME", &self.folder)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_FLAGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .current_dir(&self.folder);
        command
    }

    fn config(&self) -> String {
        let tls = self.tls_port.map(|port| {
            let (certificate, key) = (self.certificate(), self.key());
            [
                format!("listeners.ssl.local = 127.0.0.1:{port}"),
                format!("ssl_options.certfile = {}", certificate.display()),
                format!("ssl_options.keyfile = {}", key.display()),
                "ssl_options.verify = verify_none".to_owned(),
            ]
            .join("\n")
        });
        [
            format!("listeners.tcp.local = 127.0.0.1:{}", self.amqp_port),
            // The default, 512 MiB, is a lot of disk for a node that lives a minute.
            "raft.wal_max_size_bytes = 67108864".into(),
            "disk_free_limit.absolute = 50MB".into(),
            "log.console = false".into(),
            tls.unwrap_or_default(),
            String::new(),
        ]
        .join("\n")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).expect("own folder");
    }
}

/// The installed RabbitMQ seen through links that leave the optional plugins out.
///
/// At each start Erlang looks for each of some thousand modules in every folder of its code path;
/// without the plugins' folders a start takes little more than half the time.
fn slim_installation(folder: &Path) -> PathBuf {
    let installed = installation();
    let home = folder.join("installation");
    let plugins = home.join("plugins");
    fs::create_dir_all(&plugins).expect("own folder");
    for part in ["sbin", "escript"] {
        symlink(installed.join(part), home.join(part)).expect("own folder");
    }
    for entry in fs::read_dir(installed.join("plugins")).expect("plugins") {
        let name = entry.expect("plugins").file_name();
        let text = name.to_string_lossy();
        if !text.starts_with("rabbitmq_") || text.starts_with("rabbitmq_prelaunch") {
            symlink(installed.join("plugins").join(&name), plugins.join(&name))
                .expect("own folder");
        }
    }
    home
}

/// The folder with `sbin`, `plugins` and `escript`. Not what PATH names: there, Debian has a
/// wrapper that insists on its own user and folders.
fn installation() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/rabbitmq/lib")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    debian
        .chain(["/opt/rabbitmq".into(), "/usr/local/lib/rabbitmq".into()])
        .find(|home| home.join("sbin/rabbitmq-server").is_file())
        .unwrap_or_else(|| panic!("no RabbitMQ; scripts/test installs what is missing"))
}
