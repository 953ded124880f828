ALTER TABLE user_interactions DROP COLUMN schema_version;
UPDATE eclusa_schema SET version = 10;
