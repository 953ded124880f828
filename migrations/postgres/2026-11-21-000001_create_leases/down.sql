DROP TABLE leases;
UPDATE eclusa_schema SET version = 2;
