//! Settings of reactions.
