//! A private RabbitMQ node.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use super::process::{Owner, Process};
use super::rabbitmq_files::Node;
use super::{eventually, temp_dir};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// One node with its own name, ports, port mapper, folders and cookie.
pub struct RabbitMq {
    // Dropped in this order: the node, the mapper it is registered with, their files.
    server: Option<Process>,
    paused: bool,
    _epmd: Process,
    owner: Owner,
    node: Node,
    _folder: TempDir,
}

impl RabbitMq {
    /// The node all tests share that leave it alone.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A node of the caller's own, to be stopped, killed and paused.
    pub async fn start() -> Self {
        Self::start_node(false).await
    }

    async fn start_node(tls: bool) -> Self {
        let folder = temp_dir("rabbitmq-");
        let owner = Owner::named("rabbitmq");
        let node = Node::create(folder.path(), &owner, tls);
        let epmd = spawn("epmd", &node, &owner, &node.epmd());
        eventually(START, "epmd listens", async || {
            let address = ("127.0.0.1", node.epmd_port);
            TcpStream::connect(address).await.ok()
        })
        .await;
        let mut rabbitmq = Self {
            server: None,
            paused: false,
            _epmd: epmd,
            owner,
            node,
            _folder: folder,
        };
        rabbitmq.start_again().await;
        rabbitmq
    }

    /// A node of the caller's own that also listens with TLS.
    pub async fn start_with_tls() -> Self {
        Self::start_node(true).await
    }

    /// After `stop` or `kill9`: same data, same port. Returns when it takes connections.
    pub async fn start_again(&mut self) {
        assert!(self.server.is_none(), "RabbitMQ runs already");
        self.paused = false;
        let command = self.node.script("rabbitmq-server");
        let server = spawn("server", &self.node, &self.owner, &command);
        let server = self.server.insert(server);
        let output = self.node.folder.join("server.out");
        let port = self.node.amqp_port;
        eventually(START, "RabbitMQ takes connections", async || {
            if let Some(status) = server.exited() {
                let told = fs::read_to_string(&output).unwrap_or_default();
                panic!("RabbitMQ did not start ({status}):\n{told}");
            }
            greets(port).await
        })
        .await;
    }

    /// A fresh, empty virtual host. A test has its own, so tests run side by side.
    pub async fn vhost(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.eval(&format!(
            r#"ok = rabbit_vhost:add(<<"{name}">>, <<"tests">>),
               ok = rabbit_auth_backend_internal:set_permissions(
                   <<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)"#
        ))
        .await;
        self.url(&name)
    }

    /// For a virtual host by name; `%2f` is always there.
    pub fn url(&self, vhost: &str) -> String {
        let port = self.node.amqp_port;
        format!("amqp://guest:guest@127.0.0.1:{port}/{vhost}")
    }

    /// The same over TLS, for a node that was started with it.
    pub fn tls_url(&self, vhost: &str) -> String {
        let port = self.node.tls_port.expect("started with TLS");
        format!("amqps://guest:guest@localhost:{port}/{vhost}")
    }

    /// The certificate that its TLS listener shows, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.node.certificate()
    }

    pub fn port(&self) -> u16 {
        self.node.amqp_port
    }

    /// `rabbitmqctl` with `args`; takes about half a second.
    pub async fn ctl(&self, args: &[&str]) -> String {
        let mut command = self.node.script("rabbitmqctl");
        command.args(args);
        self.run(command, "").await
    }

    /// The value of an Erlang expression within the node, as
    /// `rabbitmqctl eval`, but in milliseconds.
    pub async fn eval(&self, expression: &str) -> String {
        // Two calls at once take the same name for their end, and the node turns one of them away.
        static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _turn = ONE_AT_A_TIME.lock().await;
        let told = self
            .run(self.node.erl_call(), &format!("{expression}.\n"))
            .await;
        let value = told.strip_prefix("{ok, ").and_then(|t| t.strip_suffix('}'));
        value
            .unwrap_or_else(|| panic!("{expression}: {told}"))
            .to_owned()
    }

    /// The Erlang machine dies at once; no connection is closed, no message is flushed.
    ///
    /// Only the list of the quorum queues is flushed before. RabbitMQ 3.10 keeps it in a table it
    /// writes some seconds late, and a queue declared in those seconds is not found again: its
    /// messages are on disk, and every call to it waits for a leader that never comes. A test
    /// would stumble over that only because it declares and kills within a second.
    pub async fn kill9(&mut self) {
        if !self.paused {
            self.eval("[dets:sync(Table) || Table <- dets:all()]").await;
        }
        self.server = None;
    }

    /// Shuts down in order: connections are closed with a reason, queues are flushed.
    pub async fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.signal(Signal::SIGTERM);
            server.wait_exit(STOP).await;
        }
    }

    /// Connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.paused = true;
        self.server.as_mut().expect("RabbitMQ runs").pause();
    }

    pub fn resume(&mut self) {
        self.paused = false;
        self.server.as_mut().expect("RabbitMQ runs").resume();
    }

    async fn run(&self, mut command: Command, input: &str) -> String {
        self.owner.run_as(&mut command);
        let input = input.to_owned();
        let shown = format!("{command:?}");
        let done = tokio::task::spawn_blocking(move || feed(command, &input)).await;
        let output = done.unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shown}: {told} {complaint}");
        told
    }
}

fn feed(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    // A program that has no use for the input may be gone before it is written.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("own child")
}

fn spawn(name: &str, node: &Node, owner: &Owner, command: &Command) -> Process {
    let output = fs::File::create(node.folder.join(format!("{name}.out"))).expect("own folder");
    Process::spawn(name, &node.folder, owner, command, |command| {
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("own file"))
            .stderr(output);
    })
}

/// A listening port is not yet a broker that talks: say hello and wait for its first byte.
async fn greets(port: u16) -> Option<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
    stream.read_u8().await.ok()?;
    Some(())
}

/// A channel that publishes with confirms, as a foreign publisher's.
pub async fn confirming(url: &str) -> lapin::Channel {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(url, properties).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = lapin::options::ConfirmSelectOptions::default();
    channel.confirm_select(options).await.unwrap();
    channel
}
