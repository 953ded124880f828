//! Lanes: events that are written in their order.

/// What the writes of events that keep an order have in common. One at a time is in progress, whichever process it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Key of the lock that a write holds until its commit.
    pub key: i64,
    /// What a write requires, if anything.
    pub fence: Option<Fence>,
}

/// The lease that a write requires: it writes nothing when another holder has taken it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The lease's name.
    pub lease: String,
    /// The holder's token.
    pub token: i64,
}

impl Lane {
    /// A lane whose writes require no lease.
    pub fn unfenced(key: i64) -> Self {
        Self { key, fence: None }
    }
}
