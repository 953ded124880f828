ALTER TABLE log_floor DROP COLUMN deleted_to;
UPDATE eclusa_schema SET version = 11;
