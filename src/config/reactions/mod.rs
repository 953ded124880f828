//! Settings of reactions.

#[cfg(feature = "service")]
pub mod amqp;
#[cfg(feature = "service")]
pub mod email;
#[cfg(feature = "service")]
pub mod log;
#[cfg(feature = "service")]
mod reaction;
#[cfg(feature = "service")]
pub mod webhook;

#[cfg(feature = "service")]
pub use reaction::{HandlerSettings, ReactionSettings, RunBackoff};
#[cfg(feature = "service")]
pub(super) use reaction::{check_name, check_types};

#[cfg(feature = "service")]
use super::Invalid;

/// Adds what is invalid in the reactions, and names that several have.
#[cfg(feature = "service")]
pub(super) fn validate(reactions: &[ReactionSettings], found: &mut Vec<Invalid>) {
    for (index, reaction) in reactions.iter().enumerate() {
        let at = format!("reactions[{index}]");
        reaction.validate(&at, found);
        let mut earlier = reactions.iter().take(index);
        if earlier.any(|other| other.name == reaction.name) {
            let reason = format!("is {:?}, as another reaction's", reaction.name);
            found.push(Invalid::new(&format!("{at}.name"), reason));
        }
    }
}
