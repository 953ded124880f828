-- What captures have done, and what they are asked to do: the newest row of a name holds. Each change appends a row, and
-- the ones before it are deleted, so that a snapshot that is held open slows nothing down.
CREATE TABLE captures (
    name text NOT NULL,
    n bigint NOT NULL,
    -- Of the lease under which it was written. Only commands write under that of the row before.
    token bigint NOT NULL,
    -- As JSON.
    state text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, n)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

UPDATE eclusa_schema SET version = 13;
