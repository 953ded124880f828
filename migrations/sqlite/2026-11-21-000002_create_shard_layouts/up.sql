-- The order by user needs PostgreSQL; the version of the schema is that of both stores.
UPDATE eclusa_schema SET version = 4;
