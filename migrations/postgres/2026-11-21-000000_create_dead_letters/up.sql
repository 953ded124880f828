-- What the flow put aside, with its bytes as they came. `created_at` is when it failed first and
-- never changes: (created_at, id) is the order of listings and of a replay, so that a letter that
-- fails again during a replay is not met a second time. `failed_at` is the last failure, the ones
-- before are in `history`.
CREATE TABLE dead_letters (
    id uuid PRIMARY KEY,
    state text NOT NULL DEFAULT 'dead' CHECK (state IN ('dead', 'replayed')),
    created_at timestamptz NOT NULL,
    failed_at timestamptz NOT NULL,
    replayed_at timestamptz,
    replays integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL,
    frame boolean NOT NULL,
    cause text NOT NULL,
    error text NOT NULL,
    sqlstate text,
    origin text NOT NULL,
    event_id uuid,
    event_type text,
    content_type text,
    message_id text,
    body bytea NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    history jsonb NOT NULL DEFAULT '[]'
);

-- For the number of dead ones and for a replay, which visits them by age.
CREATE INDEX dead_letters_state_idx ON dead_letters (state, created_at, id);
CREATE INDEX dead_letters_cause_idx ON dead_letters (cause, created_at, id);
-- For listings of the newest of all.
CREATE INDEX dead_letters_age_idx ON dead_letters (created_at, id);

UPDATE eclusa_schema SET version = 2;
