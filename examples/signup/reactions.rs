//! What happens after a sign-up.

use crate::database::{Database, User};
use eclusa::reactions::email::Email;
use eclusa::reactions::{Handler, HandlerError, Reaction, Reactions, Run};
use std::sync::Arc;
use std::time::Duration;

/// The type of the event that a sign-up is.
pub const SIGNED_UP: &str = "user.signed_up";

/// The reactions. Their names are stored: one with another name is another reaction.
pub fn all(email: Email, database: Arc<dyn Database>) -> Reactions {
    let second = Duration::from_secs(1);
    // Enough attempts for an SMTP server that is down for two hours.
    let welcome = Reaction::new("welcome-mail")
        .on_with(SIGNED_UP, Arc::new(email), welcome_mail)
        .max_attempts(20)
        .backoff(second, second * 600)
        .timeout(second * 6);
    let count = Reaction::new("count-domain")
        .on(SIGNED_UP, move |run| {
            count_domain(Arc::clone(&database), run)
        })
        .timeout(second * 5);
    Reactions::new().react(welcome).react(count)
}

/// Sends the mail at least once: once more if the process dies between the server's answer and the stored outcome. Its
/// `Message-ID` is made from the run's id, and so is the same each time.
async fn welcome_mail(email: Arc<Email>, run: Run) -> Result<(), HandlerError> {
    email.handle(&run).await?;
    tracing::info!(run = run.id(), attempt = run.attempt, "welcome mail sent");
    Ok(())
}

/// Counts the domain of the address exactly once: the count and the outcome of the run are one transaction.
async fn count_domain(database: Arc<dyn Database>, run: Run) -> Result<(), HandlerError> {
    let user: User = serde_json::from_str(run.event.event_data.get())
        .map_err(|error| HandlerError::Discard(format!("the event is no sign-up: {error}")))?;
    database
        .count_domain(&run, user.domain())
        .await
        .map_err(|error| HandlerError::Failed(format!("{error:#}")))
}
