//! A thread with a runtime of its own, so that what is measured does not share one with what
//! measures it.

use anyhow::Context as _;
use tokio::sync::oneshot;

/// Runs `work` on a new thread; the future gives its result.
///
/// # Errors
/// When the thread cannot be started; the future's, when it has crashed.
pub fn run<T: Send + 'static>(
    name: &str,
    work: impl AsyncFnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<impl Future<Output = anyhow::Result<T>>> {
    let (sender, result) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let outcome = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start a runtime")
                .and_then(|runtime| runtime.block_on(work()));
            // The receiver is gone when the run was interrupted.
            let _ = sender.send(outcome);
        })
        .context("cannot start a thread")?;
    Ok(async move { result.await.context("a thread of the bench has crashed")? })
}
