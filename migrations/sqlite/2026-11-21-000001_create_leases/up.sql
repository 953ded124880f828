-- Who does what only one process may do. A row stays for good: `token` grows with each holder, so
-- a write can say under which one it is made. `until` is in microseconds since 1970 in UTC.
CREATE TABLE leases (
    name TEXT PRIMARY KEY NOT NULL,
    token BIGINT NOT NULL,
    holder TEXT,
    until BIGINT NOT NULL
);

UPDATE eclusa_schema SET version = 3;
