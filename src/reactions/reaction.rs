//! A reaction as an application declares it.

use super::handler::{Handler, HandlerError, Run};
use crate::expression::{Expression, InvalidExpression};
use crate::store::commit_log::TypePatterns;
use crate::store::followers::{LaneSpec, Start};
use crate::store::reactions::ReactionDeclaration;
use std::sync::Arc;
use std::time::Duration;

/// Longest name of a reaction.
pub const MAX_NAME: usize = 60;
/// Least and highest rate of attempts in a second.
const MIN_RATE: f64 = 0.000_1;
const MAX_RATE: f64 = 100_000.0;
/// Most lanes of a reaction.
pub const MAX_LANES: u32 = 64;

/// Would be taken for a route of the HTTP API.
const RESERVED: &str = "reprocess";

/// Whether a reaction may have this name.
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(allowed)
}

/// A reaction that cannot be declared.
#[derive(Debug, thiserror::Error)]
pub enum InvalidReaction {
    #[error(
        "the reaction's name {0:?} must have 1 to {MAX_NAME} letters, digits, dots, dashes or underscores"
    )]
    Name(String),
    #[error("a reaction cannot have the name {RESERVED:?}, which is a path of the HTTP API")]
    Reserved,
    #[error("two reactions have the name {0:?}")]
    Twice(String),
    #[error("reaction {0} names no event type")]
    NoTypes(String),
    #[error("reaction {0} has no handler")]
    NoHandler(String),
    #[error("reaction {reaction}: {setting} must lie between {least} and {most}")]
    Range {
        reaction: String,
        setting: &'static str,
        least: u32,
        most: u32,
    },
    #[error("reaction {reaction}: {reason}")]
    Contradiction {
        reaction: String,
        reason: &'static str,
    },
    #[error("reaction {reaction}: {invalid}")]
    Expression {
        reaction: String,
        invalid: InvalidExpression,
    },
}

/// A named handler of events, with what it reacts to and how it runs.
///
/// ```
/// use eclusa::reactions::{HandlerError, Reaction, Run};
///
/// async fn welcome(run: Run) -> Result<(), HandlerError> {
///     println!("welcome, {:?}", run.event.user_id);
///     Ok(())
/// }
///
/// let reaction = Reaction::new("welcome-mail")
///     .on("user.signed_up", welcome)
///     .max_attempts(3);
/// ```
#[derive(Clone)]
pub struct Reaction {
    pub(super) name: Arc<str>,
    types: Vec<String>,
    start: Start,
    when: Option<String>,
    pub(super) lanes: u32,
    order_by: Option<String>,
    unique: Option<String>,
    at: Option<String>,
    pub(super) delay: Option<Duration>,
    pub(super) max_attempts: u32,
    pub(super) backoff: (Duration, Duration),
    pub(super) timeout: Duration,
    pub(super) concurrency: u32,
    pub(super) rate_per_second: Option<f64>,
    handler: Option<Arc<dyn Handler>>,
}

impl Reaction {
    /// A reaction to the events that are committed after its first declaration: five attempts of half a minute, eight
    /// at a time, with pauses between one second and five minutes.
    pub fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            types: Vec::new(),
            start: Start::Now,
            when: None,
            lanes: 1,
            order_by: None,
            unique: None,
            at: None,
            delay: None,
            max_attempts: 5,
            backoff: (Duration::from_secs(1), Duration::from_secs(300)),
            timeout: Duration::from_secs(30),
            concurrency: 8,
            rate_per_second: None,
            handler: None,
        }
    }

    /// The events of this type, in which `*` stands for any characters, are handled by this. A further type has the
    /// same handler: see [`Reaction::also_on`].
    #[must_use]
    pub fn on(self, event_type: &str, handler: impl Handler) -> Self {
        self.also_on(event_type).handler(Arc::new(handler))
    }

    /// The same with a state that each call of the handler gets.
    #[must_use]
    pub fn on_with<S, R>(
        self,
        event_type: &str,
        state: Arc<S>,
        handler: impl Fn(Arc<S>, Run) -> R + Send + Sync + 'static,
    ) -> Self
    where
        S: Send + Sync + 'static,
        R: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        self.on(event_type, move |run| handler(Arc::clone(&state), run))
    }

    /// The events of this type too.
    #[must_use]
    pub fn also_on(mut self, event_type: &str) -> Self {
        self.types.push(event_type.to_owned());
        self
    }

    /// What handles the events.
    #[must_use]
    pub fn handler(mut self, handler: Arc<dyn Handler>) -> Self {
        self.handler = Some(handler);
        self
    }

    /// Only the events for which this condition holds, in CEL.
    #[must_use]
    pub fn when(mut self, condition: &str) -> Self {
        self.when = Some(condition.to_owned());
        self
    }

    /// A new reaction begins with the first event that the log still has.
    #[must_use]
    pub fn from_beginning(mut self) -> Self {
        self.start = Start::Beginning;
        self
    }

    /// Attempts after which a run has failed.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The pause after the first failure, which doubles with each further one, up to a longest one.
    #[must_use]
    pub fn backoff(mut self, base: Duration, max: Duration) -> Self {
        self.backoff = (base, max);
        self
    }

    /// How long an attempt may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Attempts at a time in each lane.
    #[must_use]
    pub fn concurrency(mut self, attempts: u32) -> Self {
        self.concurrency = attempts;
        self
    }

    /// Lanes, which the processes of one database share.
    #[must_use]
    pub fn lanes(mut self, lanes: u32) -> Self {
        self.lanes = lanes;
        self
    }

    /// Most attempts in a second, in all lanes together.
    #[must_use]
    pub fn rate_per_second(mut self, attempts: f64) -> Self {
        self.rate_per_second = Some(attempts);
        self
    }

    /// Events for which this expression in CEL gives the same text are handled one after the other, in the order of
    /// the log.
    #[must_use]
    pub fn order_by(mut self, expression: &str) -> Self {
        self.order_by = Some(expression.to_owned());
        self
    }

    /// An event whose text by this expression in CEL is that of an event with an open run gets no run of its own.
    #[must_use]
    pub fn unique(mut self, expression: &str) -> Self {
        self.unique = Some(expression.to_owned());
        self
    }

    /// Events are handled this long after they were received.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Events are handled at the time that this expression in CEL gives; at once if it gives none.
    #[must_use]
    pub fn at(mut self, expression: &str) -> Self {
        self.at = Some(expression.to_owned());
        self
    }

    /// What is declared.
    pub(super) fn declaration(&self) -> ReactionDeclaration {
        ReactionDeclaration {
            name: self.name.to_string(),
            types: TypePatterns::new(self.types.iter().cloned()),
            start: self.start,
            spec: LaneSpec {
                lanes: self.lanes,
                when: self.when.clone(),
                key: self.order_by.clone().or_else(|| self.unique.clone()),
                ordered: self.order_by.is_some(),
                unique: self.unique.is_some(),
            },
        }
    }

    /// What a running reaction needs of it.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(super) fn check(&self) -> Result<Plan, InvalidReaction> {
        let name = self.name.to_string();
        if !is_name(&name) {
            return Err(InvalidReaction::Name(name));
        }
        if name == RESERVED {
            return Err(InvalidReaction::Reserved);
        }
        if self.types.is_empty() {
            return Err(InvalidReaction::NoTypes(name));
        }
        let ranges = [
            ("max_attempts", self.max_attempts, 1, 100),
            ("lanes", self.lanes, 1, MAX_LANES),
            ("concurrency", self.concurrency, 1, 1_000),
        ];
        for (setting, value, least, most) in ranges {
            if value < least || value > most {
                let reaction = name;
                return Err(InvalidReaction::Range {
                    reaction,
                    setting,
                    least,
                    most,
                });
            }
        }
        if let Some(reason) = self.contradiction() {
            let reaction = name;
            return Err(InvalidReaction::Contradiction { reaction, reason });
        }
        let Some(handler) = self.handler.clone() else {
            return Err(InvalidReaction::NoHandler(name));
        };
        let invalid = |invalid| InvalidReaction::Expression {
            reaction: name.clone(),
            invalid,
        };
        let parse = |text: &Option<String>| {
            let parsed = text.as_deref().map(Expression::parse).transpose();
            parsed.map_err(invalid)
        };
        if let Some(when) = &self.when {
            Expression::parse_condition(when).map_err(invalid)?;
        }
        parse(&self.order_by)?;
        parse(&self.unique)?;
        Ok(Plan {
            at: parse(&self.at)?,
            handler,
            reaction: self.clone(),
        })
    }

    fn contradiction(&self) -> Option<&'static str> {
        let is_delayed = self.delay.is_some() || self.at.is_some();
        if self.order_by.is_some() && is_delayed {
            return Some(
                "order_by with delay or at: what is delayed would hold up all that follows; remove one of them",
            );
        }
        if self.delay.is_some() && self.at.is_some() {
            return Some("delay and at: remove one of them");
        }
        if let (Some(order), Some(unique)) = (&self.order_by, &self.unique)
            && order != unique
        {
            return Some(
                "order_by and unique have different expressions, but one key chooses the lane; write the same, or remove one of them",
            );
        }
        if self.timeout.is_zero() || self.timeout > Duration::from_secs(3_600) {
            return Some("timeout must be above zero and at most an hour");
        }
        if self.backoff.0.is_zero() || self.backoff.1 < self.backoff.0 {
            return Some(
                "the pauses of backoff must be above zero, and the longest not below the first",
            );
        }
        match self.rate_per_second {
            Some(rate) if !(MIN_RATE..=MAX_RATE).contains(&rate) => {
                Some("rate_per_second must lie between 0.0001 and 100,000")
            }
            _ => None,
        }
    }
}

/// A checked reaction.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) reaction: Reaction,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) at: Option<Expression>,
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn nothing(_: Run) -> Result<(), HandlerError> {
        Ok(())
    }

    fn refusal(reaction: Reaction) -> String {
        match reaction.check() {
            Ok(_) => panic!("it is accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_words() {
        let reaction = || Reaction::new("r").on("a", nothing);
        assert!(reaction().check().is_ok());
        assert!(refusal(Reaction::new("a b").on("a", nothing)).contains("\"a b\""));
        assert!(refusal(Reaction::new("reprocess").on("a", nothing)).contains("HTTP API"));
        assert!(refusal(Reaction::new("r")).contains("no event type"));
        assert!(refusal(Reaction::new("r").also_on("a")).contains("no handler"));
        assert!(refusal(reaction().lanes(65)).contains("lanes must lie between 1 and 64"));
        let ordered = reaction().order_by("userId");
        assert!(
            refusal(ordered.clone().delay(Duration::from_secs(1))).contains("order_by with delay")
        );
        assert!(refusal(ordered.clone().unique("sessionId")).contains("different expressions"));
        assert!(ordered.unique("userId").check().is_ok());
        assert!(refusal(reaction().when("eventData.")).contains("the expression"));
        assert!(refusal(reaction().rate_per_second(f64::NAN)).contains("rate_per_second"));
    }
}
