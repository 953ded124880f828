-- Who does what only one process may do. A row stays for good: `token` grows with each holder, so
-- a write can say under which one it is made. The second key is what makes a change of `token` a
-- change of a key: a transaction that holds FOR KEY SHARE on a row keeps others from taking the
-- lease, but not its holder from renewing it.
CREATE TABLE leases (
    name text PRIMARY KEY,
    token bigint NOT NULL,
    holder text,
    until timestamptz NOT NULL,
    UNIQUE (name, token)
) WITH (fillfactor = 50);

UPDATE eclusa_schema SET version = 3;
