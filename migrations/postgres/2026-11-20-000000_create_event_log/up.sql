-- Which releases can work on this database. Every migration updates the row: `version` is the
-- schema's, `oldest_compatible` that of the oldest release that may still run on it.
CREATE TABLE eclusa_schema (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version integer NOT NULL,
    oldest_compatible integer NOT NULL
);
INSERT INTO eclusa_schema (version, oldest_compatible) VALUES (1, 1);

-- Not an identity column: PostgreSQL 17 refuses to attach a partition that has one.
CREATE SEQUENCE user_interactions_id_seq AS bigint;

-- The event log. `bucket` is a pure function of `event_id` (the UTC day of a UUIDv7, else
-- 0001-01-01), so that (event_id, bucket) is unique exactly if event_id is, while the unique index
-- stays local to a partition. There is no default partition: a row it had taken would stand in the
-- way of the day partition it belongs to.
CREATE TABLE user_interactions (
    id bigint NOT NULL DEFAULT nextval('user_interactions_id_seq'),
    -- The transaction that wrote the row. Followers of the log read up to the oldest transaction
    -- still open, never up to the highest id seen.
    transaction bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    "timestamp" timestamptz NOT NULL DEFAULT now(),
    received_at timestamptz NOT NULL DEFAULT now(),
    event_id uuid NOT NULL,
    bucket date NOT NULL,
    processed boolean NOT NULL DEFAULT false,
    source text NOT NULL,
    producer text NOT NULL,
    event_type text NOT NULL,
    user_id text,
    session_id text,
    original_id text,
    event_data jsonb NOT NULL DEFAULT '{}',
    UNIQUE (event_id, bucket)
) PARTITION BY RANGE (bucket);

ALTER SEQUENCE user_interactions_id_seq OWNED BY user_interactions.id;

-- For listings by user and by session.
CREATE INDEX user_interactions_user_type_idx ON user_interactions (user_id, event_type);
CREATE INDEX user_interactions_session_idx ON user_interactions (session_id);
-- For listings of the newest, and for followers of the log. Together they cost an insert 3 us of
-- processor time per row. Block ranges (BRIN) would cost less, but until autovacuum has come by, a
-- query for the newest page reads the whole partition: 400 ms instead of 0.5 at a million rows.
CREATE INDEX user_interactions_arrival_idx ON user_interactions (id);
CREATE INDEX user_interactions_commit_idx ON user_interactions (transaction, id);
-- For retention and maintenance: rows lie on disk in order of arrival.
CREATE INDEX user_interactions_received_idx ON user_interactions USING brin (received_at);

-- Events whose id carries no day. The free space lets `processed` be flipped within the page.
CREATE TABLE user_interactions_unordered PARTITION OF user_interactions
    FOR VALUES FROM ('0001-01-01') TO ('0001-01-02') WITH (fillfactor = 85);
