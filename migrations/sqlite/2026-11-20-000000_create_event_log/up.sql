-- Which releases can work on this database. Every migration updates the row: `version` is the
-- schema's, `oldest_compatible` that of the oldest release that may still run on it.
CREATE TABLE eclusa_schema (
    single INTEGER PRIMARY KEY NOT NULL DEFAULT 1 CHECK (single = 1),
    version INTEGER NOT NULL,
    oldest_compatible INTEGER NOT NULL
);
INSERT INTO eclusa_schema (version, oldest_compatible) VALUES (1, 1);

-- The event log. Times are microseconds since 1970 in UTC. AUTOINCREMENT: an id is never given
-- again after its row was deleted, or a follower of the log would pass over the new row.
CREATE TABLE user_interactions (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    event_id BLOB NOT NULL UNIQUE,
    "timestamp" BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    processed BOOLEAN NOT NULL DEFAULT 0,
    source TEXT NOT NULL,
    producer TEXT NOT NULL,
    event_type TEXT NOT NULL,
    user_id TEXT,
    session_id TEXT,
    original_id TEXT,
    event_data TEXT NOT NULL DEFAULT '{}'
);

CREATE INDEX user_interactions_user_type_idx ON user_interactions (user_id, event_type);
CREATE INDEX user_interactions_session_idx ON user_interactions (session_id);
