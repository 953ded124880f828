-- What captures have done, and what they are asked to do: the newest row of a name holds.
CREATE TABLE captures (
    name TEXT NOT NULL,
    n BIGINT NOT NULL,
    -- Of the lease under which it was written. Only commands write under that of the row before.
    token BIGINT NOT NULL,
    -- As JSON.
    state TEXT NOT NULL,
    stored_at BIGINT NOT NULL,
    PRIMARY KEY (name, n)
) WITHOUT ROWID;

UPDATE eclusa_schema SET version = 13;
