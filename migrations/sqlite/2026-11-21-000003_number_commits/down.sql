DROP TABLE log_generation;
UPDATE eclusa_schema SET version = 4;
