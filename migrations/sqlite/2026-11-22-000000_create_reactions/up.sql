-- Named handlers of events. `id` is another one when a reaction was removed and declared again. Each lane of
-- a reaction is a follower of the kind `reaction` with the name `NAME:LANE`. Times are microseconds since 1970
-- in UTC.
CREATE TABLE reactions (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    paused BOOLEAN NOT NULL DEFAULT 0,
    declared_at BIGINT NOT NULL
);

-- Of a lane: the number of lanes, and by what events are selected and distributed, as JSON.
ALTER TABLE follower_declarations ADD COLUMN spec TEXT;

-- Of a lane: how many handlers may have been started for events behind the position; 0 after a clean end.
ALTER TABLE follower_positions ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;

-- What became of the runs: a row as soon as the first attempt is decided. `open` are those that `reaction_queue`
-- holds.
CREATE TABLE reaction_runs (
    reaction INTEGER NOT NULL,
    position BIGINT NOT NULL,
    event_id BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'succeeded', 'failed', 'cancelled')),
    attempts INTEGER NOT NULL,
    -- Null while it is open.
    finished_at BIGINT,
    -- Of the last attempt.
    duration_us BIGINT,
    worker TEXT,
    error TEXT,
    -- The attempts before, as a JSON array.
    history TEXT,
    PRIMARY KEY (reaction, position)
) WITHOUT ROWID;
CREATE INDEX reaction_runs_not_succeeded_idx ON reaction_runs (reaction, state, position) WHERE state <> 'succeeded';

-- Runs that are due later: attempts after the first, and what is scheduled. `event` is a copy, so that a run outlives
-- the retention of the log.
CREATE TABLE reaction_queue (
    reaction INTEGER NOT NULL REFERENCES reactions (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    event_id BLOB NOT NULL,
    event TEXT NOT NULL,
    order_key TEXT,
    unique_key TEXT,
    -- For a claimed run the end of the claim. The highest number for one that waits for an earlier one of its order
    -- key.
    due BIGINT NOT NULL,
    attempts INTEGER NOT NULL,
    -- Attempts that do not count towards the most that are allowed: those before it was reprocessed, and those that were
    -- lost with their process beside another run that may have ended it.
    attempts_before INTEGER NOT NULL DEFAULT 0,
    -- Takes turns with others like it: a process may have ended by it.
    alone BOOLEAN NOT NULL DEFAULT 0,
    -- Of the claim; null for a run that is not claimed.
    token BIGINT,
    worker TEXT,
    claimed_at BIGINT,
    history TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (reaction, position)
);
CREATE INDEX reaction_queue_due_idx ON reaction_queue (reaction, due);
CREATE INDEX reaction_queue_order_idx ON reaction_queue (reaction, order_key, position) WHERE order_key IS NOT NULL;
CREATE INDEX reaction_queue_unique_idx ON reaction_queue (reaction, unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX reaction_queue_event_idx ON reaction_queue (event_id);

-- How many runs have succeeded.
CREATE TABLE reaction_counts (
    reaction INTEGER PRIMARY KEY NOT NULL REFERENCES reactions (id) ON DELETE CASCADE,
    succeeded BIGINT NOT NULL
);

UPDATE eclusa_schema SET version = 7;
