//! The outcomes of an event, and the causes of its failure. Each event that enters the flow has
//! exactly one outcome.

/// Why an event failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The message is none of the shapes Eclusa reads.
    Malformed,
    /// The message has a known shape, but a field breaks a rule.
    Invalid,
    /// The payload breaks the schema of its type.
    Schema,
    /// The store never accepts this row.
    Poison,
    /// It failed too many times in a way that may pass.
    RetriesExhausted,
    /// Writing it panicked each time.
    Panic,
    /// Writing it never ended, while other events could be written.
    Timeout,
    /// Dead-lettered by the broker: it lay in a queue longer than a policy allows.
    Expired,
    /// Dead-lettered by the broker: another consumer rejected it.
    Rejected,
    /// Dead-lettered by the broker: it was delivered more often than a policy allows.
    DeliveryLimit,
    /// A follower of the log cannot apply it. The event itself is in the log.
    Follower,
    /// Collectors were handed it too often without an acknowledgement. The event itself is in the log.
    Undeliverable,
    /// It was on the dead-letter queue without a cause that this release knows.
    Unknown,
}

impl Cause {
    pub const ALL: [Cause; 13] = [
        Cause::Malformed,
        Cause::Invalid,
        Cause::Schema,
        Cause::Poison,
        Cause::RetriesExhausted,
        Cause::Panic,
        Cause::Timeout,
        Cause::Expired,
        Cause::Rejected,
        Cause::DeliveryLimit,
        Cause::Follower,
        Cause::Undeliverable,
        Cause::Unknown,
    ];

    /// The word in metric labels and message headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Malformed => "malformed",
            Cause::Invalid => "invalid",
            Cause::Schema => "schema",
            Cause::Poison => "poison",
            Cause::RetriesExhausted => "retries_exhausted",
            Cause::Panic => "panic",
            Cause::Timeout => "timeout",
            Cause::Expired => "expired",
            Cause::Rejected => "rejected",
            Cause::DeliveryLimit => "delivery_limit",
            Cause::Follower => "follower",
            Cause::Undeliverable => "undeliverable",
            Cause::Unknown => "unknown",
        }
    }

    /// Whether the event is in the log, and a replay hands it to its follower again.
    pub fn is_of_follower(self) -> bool {
        matches!(self, Cause::Follower | Cause::Undeliverable)
    }

    /// The reverse of [`Cause::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Cause::ALL.into_iter().find(|cause| cause.as_str() == word)
    }
}

/// How a ticket was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Confirmed by the work queue: durable, not yet a row.
    Published,
    /// Committed in the log.
    Stored,
    /// The log already had an event of this id.
    Duplicate,
    /// Published to a retry queue, from which it comes back.
    Retried,
    /// Confirmed by the dead-letter queue, or committed in the table of dead letters.
    DeadLettered(Cause),
    /// Not taken, since the store or the broker is unavailable: the caller may repeat it later.
    Refused,
    /// Dropped unsettled: its source has it again and delivers it once more.
    Returned,
}

impl Outcome {
    /// The word in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Published => "published",
            Outcome::Stored => "stored",
            Outcome::Duplicate => "duplicate",
            Outcome::Retried => "retried",
            Outcome::DeadLettered(_) => "dead_lettered",
            Outcome::Refused => "refused",
            Outcome::Returned => "returned",
        }
    }

    /// Whether the event is safe where it is now, so that its source may forget it.
    pub fn is_durable(self) -> bool {
        !matches!(self, Outcome::Refused | Outcome::Returned)
    }
}
