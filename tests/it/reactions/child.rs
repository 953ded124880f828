//! A process of its own that runs a reaction of the library, so that a handler can kill it.

use super::effects::{Effects, End};
use crate::followers::{Place, SOON};
use crate::harness::eventually;
use eclusa::followers::{FollowerOptions, Followers};
use eclusa::metrics::Metrics;
use eclusa::reactions::{HandlerError, Reaction, Reactions, Run};
use eclusa::supervision::Starter;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const EFFECTS: &str = "TEST_EFFECTS";
const DIES: &str = "TEST_DIES";
/// Attempts of a run.
pub const MAX_ATTEMPTS: u32 = 2;
/// Of an attempt. A claim holds for 15 s more.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Said by an attempt of `held` that has begun.
pub const BEGUN: &str = "begun";
/// Lets all attempts of `held` end.
pub const RELEASED: &str = "released";

/// A child of this process. Killed on drop, and it ends when this process does.
pub struct Reactor(Child);

impl Reactor {
    /// Starts a process with the reaction to all events: what is of the type `poison` kills it, and what is of the type
    /// `dies` kills it in the transaction of its effect, as `dies` says. Of two further reactions, `held` has runs that
    /// end when they are released, and of events of the type `fatal` runs that kill the process; each run of `retried`
    /// fails at first, and then does not end in the process that has seen it fail.
    pub fn start(place: &Place, dies: End) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--ignored", "--exact", "--nocapture"]);
        command.arg("reactions::child::runs_a_reaction");
        command.env(EFFECTS, Effects::of(place).to_text());
        command.env(DIES, dies.as_str());
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Waits until it is dead.
    pub async fn dies(&mut self) {
        eventually(SOON, "the process dies", async || {
            self.0.try_wait().unwrap().map(|_| ())
        })
        .await;
    }

    pub fn is_dead(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As `kill -9` from outside.
pub fn die() -> ! {
    let pid = nix::unistd::Pid::this();
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    loop {
        std::thread::park();
    }
}

#[actix_rt::test]
#[ignore = "run by other tests as a process"]
async fn runs_a_reaction() {
    let (Ok(effects), Ok(dies)) = (std::env::var(EFFECTS), std::env::var(DIES)) else {
        return;
    };
    let (effects, dies) = (Effects::from_text(&effects), End::parse(&dies));
    let store = effects.store().await;
    let holding = effects.clone();
    let handler = move |run: Run| {
        let effects = effects.clone();
        async move {
            let end = match run.event.event_type.as_str() {
                "poison" => die(),
                "dies" => dies,
                _ => End::Commit,
            };
            let done = effects.complete(&run, end).await;
            done.map_err(|error| HandlerError::Failed(error.to_string()))
        }
    };
    let reaction = Reaction::new("effects")
        .on("*", handler)
        .from_beginning()
        .concurrency(4)
        .timeout(TIMEOUT)
        .max_attempts(MAX_ATTEMPTS);
    let held = Reaction::new("held")
        .on("held", move |run: Run| {
            let effects = holding.clone();
            async move {
                if run.event.event_type == "fatal" {
                    die();
                }
                effects.note(BEGUN).await;
                while !effects.done().await.iter().any(|one| one == RELEASED) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(())
            }
        })
        .also_on("fatal")
        .from_beginning()
        .concurrency(4)
        .timeout(SOON * 2)
        .max_attempts(1);
    let retried = Reaction::new("retried")
        .on("retried", async |run: Run| match run.attempt {
            1 => Err(HandlerError::Failed("not at first".to_owned())),
            2 => std::future::pending().await,
            _ => Ok(()),
        })
        .from_beginning()
        .timeout(TIMEOUT * 10)
        .backoff(Duration::from_millis(10), Duration::from_millis(20))
        .max_attempts(MAX_ATTEMPTS);
    let metrics = Arc::new(Metrics::new().unwrap());
    let starter = Starter::new(Arc::clone(&metrics));
    let options = FollowerOptions {
        lease_ttl: Duration::from_secs(1),
        ..FollowerOptions::default()
    };
    let declared = Reactions::new()
        .react(reaction)
        .react(held)
        .react(retried)
        .declare(&store, Followers::new(), &metrics);
    let running = declared
        .await
        .unwrap()
        .start(store, options, &starter)
        .await;
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let _ = end.await;
    drop(running);
    std::process::exit(0);
}
