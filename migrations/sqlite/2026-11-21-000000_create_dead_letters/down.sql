DROP TABLE dead_letters;
UPDATE eclusa_schema SET version = 1;
