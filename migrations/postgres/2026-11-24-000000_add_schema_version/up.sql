-- The version of the type's schema that an event was checked against, or that its producer named; null where
-- neither is so, as for all events so far. A nullable column without a default is added without rewriting the log.
ALTER TABLE user_interactions ADD COLUMN schema_version smallint;

UPDATE eclusa_schema SET version = 11;
