-- What the flow put aside, with its bytes as they came. `created_at` is when it failed first and
-- never changes: (created_at, id) is the order of listings and of a replay, so that a letter that
-- fails again during a replay is not met a second time. `failed_at` is the last failure, the ones
-- before are in `history`. Times are microseconds since 1970 in UTC.
CREATE TABLE dead_letters (
    id BLOB PRIMARY KEY NOT NULL,
    state TEXT NOT NULL DEFAULT 'dead' CHECK (state IN ('dead', 'replayed')),
    created_at BIGINT NOT NULL,
    failed_at BIGINT NOT NULL,
    replayed_at BIGINT,
    replays INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL,
    frame BOOLEAN NOT NULL,
    cause TEXT NOT NULL,
    error TEXT NOT NULL,
    sqlstate TEXT,
    origin TEXT NOT NULL,
    event_id BLOB,
    event_type TEXT,
    content_type TEXT,
    message_id TEXT,
    body BLOB NOT NULL,
    headers TEXT NOT NULL DEFAULT '{}',
    history TEXT NOT NULL DEFAULT '[]'
);

-- For the number of dead ones and for a replay, which visits them by age.
CREATE INDEX dead_letters_state_idx ON dead_letters (state, created_at, id);
CREATE INDEX dead_letters_cause_idx ON dead_letters (cause, created_at, id);
-- For listings of the newest of all.
CREATE INDEX dead_letters_age_idx ON dead_letters (created_at, id);

UPDATE eclusa_schema SET version = 2;
