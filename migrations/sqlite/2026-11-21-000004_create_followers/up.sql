-- The readers of the log that have a position of their own. `revision` grows with every change of the
-- row that a running follower must know of: each of its transactions checks it. Times are
-- microseconds since 1970 in UTC.
CREATE TABLE followers (
    name TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'paused', 'broken', 'gapped')),
    reason TEXT,
    on_error TEXT NOT NULL CHECK (on_error IN ('stop', 'dead_letter')),
    revision BIGINT NOT NULL DEFAULT 1,
    rebuild BOOLEAN NOT NULL DEFAULT 0,
    -- A day as YYYY-MM-DD.
    complete_since TEXT,
    declared_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL
);

-- What a follower subscribes to, from a position on. `types` is a JSON array.
CREATE TABLE follower_declarations (
    follower TEXT NOT NULL REFERENCES followers (name) ON DELETE CASCADE,
    holds_from BIGINT NOT NULL,
    types TEXT NOT NULL,
    PRIMARY KEY (follower, holds_from)
);

-- The positions of a follower; the one with the highest `n` holds.
CREATE TABLE follower_positions (
    follower TEXT NOT NULL REFERENCES followers (name) ON DELETE CASCADE,
    n BIGINT NOT NULL,
    position BIGINT NOT NULL,
    stored_at BIGINT NOT NULL,
    PRIMARY KEY (follower, n)
);

-- Dead letters of a follower that it is to apply again.
CREATE TABLE follower_replays (
    letter BLOB PRIMARY KEY NOT NULL,
    follower TEXT NOT NULL REFERENCES followers (name) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    event TEXT NOT NULL,
    requested_at BIGINT NOT NULL
);
CREATE INDEX follower_replays_follower_idx ON follower_replays (follower, requested_at);

-- The day from which on the log is complete; null while nothing was removed.
CREATE TABLE log_floor (
    single INTEGER PRIMARY KEY NOT NULL DEFAULT 1 CHECK (single = 1),
    complete_since TEXT
);
INSERT INTO log_floor DEFAULT VALUES;

UPDATE eclusa_schema SET version = 6;
