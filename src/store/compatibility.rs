//! Whether this release and the schema of a database go together.

use super::{ErrorKind, StoreError};

/// The schema this release was written for. Each migration raises it and the table
/// `eclusa_schema`.
pub const SCHEMA_VERSION: i32 = 13;

/// What the table `eclusa_schema` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, diesel::Queryable)]
pub struct Schema {
    /// The version of the schema.
    pub version: i32,
    /// The version of the oldest release that can still work on it.
    pub oldest_compatible: i32,
}

impl Schema {
    /// Whether migrations may run: not if a newer release has left this one behind.
    ///
    /// # Errors
    /// A newer release has changed the schema in a way that this one does not know.
    pub fn check_not_newer(self) -> Result<(), StoreError> {
        if self.oldest_compatible <= SCHEMA_VERSION {
            return Ok(());
        }
        Err(StoreError::new(
            ErrorKind::Operator,
            format!(
                "this database was migrated by a newer Eclusa (schema {}, needs at least {}; this \
                 binary has {SCHEMA_VERSION}); upgrade this binary",
                self.version, self.oldest_compatible
            ),
        ))
    }

    /// Whether this release can work on the schema as it is.
    ///
    /// # Errors
    /// The schema is newer, see [`Schema::check_not_newer`], or older.
    pub fn check(self) -> Result<(), StoreError> {
        self.check_not_newer()?;
        if self.version >= SCHEMA_VERSION {
            return Ok(());
        }
        Err(StoreError::new(
            ErrorKind::Operator,
            format!(
                "this database has schema {}, this binary needs {SCHEMA_VERSION}; \
                 run `eclusa migrate`",
                self.version
            ),
        ))
    }

    /// There is no schema at all.
    pub(super) fn missing() -> StoreError {
        StoreError::new(
            ErrorKind::Operator,
            "this database has no tables of Eclusa yet; run `eclusa migrate`",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_schema_within_reach_is_taken() {
        let schema = |version, oldest_compatible| Schema {
            version,
            oldest_compatible,
        };
        assert!(schema(SCHEMA_VERSION, 1).check().is_ok());
        assert!(schema(SCHEMA_VERSION + 2, SCHEMA_VERSION).check().is_ok());
        let newer = schema(SCHEMA_VERSION + 2, SCHEMA_VERSION + 1);
        assert!(
            newer
                .check_not_newer()
                .unwrap_err()
                .to_string()
                .contains("upgrade this binary")
        );
        let older = schema(SCHEMA_VERSION - 1, 0);
        assert!(older.check_not_newer().is_ok());
        assert!(
            older
                .check()
                .unwrap_err()
                .to_string()
                .contains("eclusa migrate")
        );
    }
}
