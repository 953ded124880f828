//! The event types that reactions are declared for, as a store remembers them for its writers.

use super::commit_log::TypePatterns;
use std::sync::{PoisonError, RwLock};

/// The types of all reactions. An event of another type has nothing to wait for, and is processed at once.
#[derive(Default)]
pub(super) struct AwaitedTypes {
    patterns: RwLock<Option<TypePatterns>>,
}

impl AwaitedTypes {
    /// Remembers what the declarations say. None stands for no reaction.
    pub(super) fn set(&self, types: Vec<String>) {
        let patterns = (!types.is_empty()).then(|| TypePatterns::new(types));
        // Each change is a single step, so a panic elsewhere left nothing half done.
        *self
            .patterns
            .write()
            .unwrap_or_else(PoisonError::into_inner) = patterns;
    }

    /// Whether a reaction is declared for this type.
    #[cfg(feature = "sqlite")]
    pub(super) fn has(&self, event_type: &str) -> bool {
        self.among([event_type]).len() == 1
    }

    /// Those of these types that a reaction is declared for.
    pub(super) fn among<'a>(&self, types: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let patterns = self.patterns.read().unwrap_or_else(PoisonError::into_inner);
        match &*patterns {
            None => Vec::new(),
            Some(patterns) => types
                .into_iter()
                .filter(|one| patterns.matches(one))
                .collect(),
        }
    }
}
