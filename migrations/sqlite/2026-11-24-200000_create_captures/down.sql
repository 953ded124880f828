DROP TABLE captures;
UPDATE eclusa_schema SET version = 12;
