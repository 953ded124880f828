//! What can become of an event. Each event that enters the flow ends in exactly one of these.

/// Why an event was dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The message is none of the shapes Eclusa reads.
    Malformed,
    /// The message has a known shape, but a field breaks a rule.
    Invalid,
    /// The store refuses this row whatever one does.
    Poison,
    /// It failed in a way that may pass, too many times.
    RetriesExhausted,
    /// Writing it crashed, each time.
    Panic,
    /// Writing it never came to an end, each time, while others could be written.
    Timeout,
    /// The broker put it aside: it lay in a queue longer than a policy allows.
    Expired,
    /// The broker put it aside: somebody else's consumer rejected it.
    Rejected,
    /// The broker put it aside: it was delivered more often than a policy allows.
    DeliveryLimit,
    /// It was on the dead-letter queue without a word that this release knows.
    Unknown,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 10] = [
        Cause::Malformed,
        Cause::Invalid,
        Cause::Poison,
        Cause::RetriesExhausted,
        Cause::Panic,
        Cause::Timeout,
        Cause::Expired,
        Cause::Rejected,
        Cause::DeliveryLimit,
        Cause::Unknown,
    ];

    /// The word in metric labels and message headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Malformed => "malformed",
            Cause::Invalid => "invalid",
            Cause::Poison => "poison",
            Cause::RetriesExhausted => "retries_exhausted",
            Cause::Panic => "panic",
            Cause::Timeout => "timeout",
            Cause::Expired => "expired",
            Cause::Rejected => "rejected",
            Cause::DeliveryLimit => "delivery_limit",
            Cause::Unknown => "unknown",
        }
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
    /// Published again, to come back after a delay.
    Retried,
    /// Confirmed by the dead-letter queue, or committed in the table of dead letters.
    DeadLettered(Cause),
    /// The caller was told that it was not taken, and why.
    Refused(Refusal),
    /// Dropped unsettled: it is its source's again, which will bring it back.
    Returned,
}

/// Why a caller was refused an event that had already entered the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Store or broker is away, or does not answer in time.
    Unavailable,
    /// There is no room; the caller should come back later.
    Overloaded,
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
            Outcome::Refused(_) => "refused",
            Outcome::Returned => "returned",
        }
    }

    /// Whether the event is safe where it is now, so that its source may forget it.
    pub fn is_durable(self) -> bool {
        !matches!(self, Outcome::Refused(_) | Outcome::Returned)
    }
}
