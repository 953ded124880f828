ALTER TABLE reaction_queue DROP COLUMN reopened;
UPDATE eclusa_schema SET version = 8;
