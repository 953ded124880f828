//! What an application implements to apply the log to its database.

use super::registry::Subscription;
use crate::store::commit_log::LoggedEvent;
use crate::store::transaction::{EffectError, Transaction};
use async_trait::async_trait;

/// A follower whose effect lies in the log's own database, and so happens exactly once.
///
/// ```no_run
/// use eclusa::followers::{Projection, Subscription};
/// use eclusa::store::commit_log::LoggedEvent;
/// use eclusa::store::transaction::{EffectError, Transaction};
///
/// struct Orders;
///
/// #[async_trait::async_trait]
/// impl Projection for Orders {
///     fn name(&self) -> &str {
///         "orders"
///     }
///
///     fn subscription(&self) -> Subscription {
///         Subscription::to(["order.*"])
///     }
///
///     async fn apply(
///         &self,
///         transaction: &mut Transaction<'_>,
///         events: &[LoggedEvent],
///     ) -> Result<(), EffectError> {
///         let paid = events.iter().filter(|logged| logged.event.event_type == "order.paid").count();
///         match transaction {
///             Transaction::Postgres(connection) => {
///                 use diesel_async::RunQueryDsl;
///                 diesel::sql_query("UPDATE totals SET paid = paid + $1")
///                     .bind::<diesel::sql_types::BigInt, _>(paid as i64)
///                     .execute(connection)
///                     .await?;
///             }
///             Transaction::Sqlite(_) => {
///                 return Err(EffectError::Refused("needs PostgreSQL".to_owned()));
///             }
///         }
///         Ok(())
///     }
///
///     async fn reset(&self, _: &mut Transaction<'_>) -> Result<(), EffectError> {
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// Its name, under which the store keeps its position; unique, and for good.
    fn name(&self) -> &str;

    /// Which events it applies, and where it begins.
    fn subscription(&self) -> Subscription;

    /// Applies events, in the order of the log. Their effect and the new position are committed together.
    ///
    /// # Errors
    /// Everything that was done in the transaction is undone. An outage, and what only an operator can
    /// end, is waited for; otherwise the chunk is applied in smaller parts until one event stands alone,
    /// with which happens what the subscription says.
    async fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        events: &[LoggedEvent],
    ) -> Result<(), EffectError>;

    /// Whether what was applied can be undone. If not, a rebuild is refused.
    fn can_rebuild(&self) -> bool {
        true
    }

    /// Undoes all that was applied, for a rebuild from the beginning.
    ///
    /// # Errors
    /// As [`Projection::apply`]; it is tried again.
    async fn reset(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError>;
}
