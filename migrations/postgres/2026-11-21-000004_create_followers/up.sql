-- The readers of the log that have a position of their own. `revision` grows with every change of the
-- row that a running follower must know of: each of its transactions checks it.
CREATE TABLE followers (
    name text PRIMARY KEY,
    kind text NOT NULL,
    state text NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'paused', 'broken', 'gapped')),
    -- Why it is broken or gapped.
    reason text,
    on_error text NOT NULL CHECK (on_error IN ('stop', 'dead_letter')),
    revision bigint NOT NULL DEFAULT 1,
    -- A rebuild that was asked for and not begun.
    rebuild boolean NOT NULL DEFAULT false,
    -- What it has applied is complete for events of this day and later; null if for all.
    complete_since date,
    declared_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- What a follower subscribes to, from a position on.
CREATE TABLE follower_declarations (
    follower text NOT NULL REFERENCES followers (name) ON DELETE CASCADE,
    holds_from bigint NOT NULL,
    types text[] NOT NULL,
    PRIMARY KEY (follower, holds_from)
);

-- The positions of a follower; the one with the highest `n` holds. Appended, and removed later, because
-- a row that is updated in place gets slower with each update while an old snapshot is open.
CREATE TABLE follower_positions (
    follower text NOT NULL REFERENCES followers (name) ON DELETE CASCADE,
    n bigint NOT NULL,
    position bigint NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (follower, n)
);

-- Dead letters of a follower that it is to apply again.
CREATE TABLE follower_replays (
    letter uuid PRIMARY KEY,
    follower text NOT NULL REFERENCES followers (name) ON DELETE CASCADE,
    position bigint NOT NULL,
    event jsonb NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX follower_replays_follower_idx ON follower_replays (follower, requested_at);

-- The day from which on the log is complete: retention has removed events of days before. Null while
-- nothing was removed.
CREATE TABLE log_floor (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    complete_since date
);
INSERT INTO log_floor DEFAULT VALUES;

-- Declares a follower, or what an existing one subscribes to from now on, under the lock of the
-- numbering: no commit gets its number between the position that is read and the row that is written.
-- `from_now` is for a new one only. Returns whether anything has changed.
CREATE FUNCTION eclusa_declare_follower(
    name text, kind text, types text[], on_error text, from_now boolean
) RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    durable text := current_setting('synchronous_commit');
    done record;
    here bigint;
    known record;
BEGIN
    LOOP
        SELECT * INTO done FROM eclusa_number_commits();
        EXIT WHEN done.numbered < 50000;
    END LOOP;
    PERFORM set_config('synchronous_commit', durable, true);
    here := CASE done.last WHEN 0 THEN 0 ELSE done.last << 12 | 4095 END;
    INSERT INTO followers (name, kind, on_error) VALUES (name, kind, on_error)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        IF NOT from_now THEN
            here := 0;
            -- The retention locks it before it looks for followers.
            PERFORM FROM log_floor FOR SHARE;
            UPDATE followers SET complete_since = (SELECT f.complete_since FROM log_floor AS f)
            WHERE followers.name = name;
        END IF;
        INSERT INTO follower_declarations (follower, holds_from, types) VALUES (name, here, types);
        INSERT INTO follower_positions (follower, n, position) VALUES (name, 0, here);
        RETURN true;
    END IF;
    SELECT f.kind, f.on_error, d.types INTO STRICT known
    FROM followers AS f JOIN follower_declarations AS d ON d.follower = f.name
    WHERE f.name = name ORDER BY d.holds_from DESC LIMIT 1;
    IF (known.kind, known.on_error, known.types) IS NOT DISTINCT FROM (kind, on_error, types) THEN
        RETURN false;
    END IF;
    IF known.types <> types THEN
        INSERT INTO follower_declarations (follower, holds_from, types) VALUES (name, here, types)
        ON CONFLICT (follower, holds_from) DO UPDATE SET types = excluded.types;
    END IF;
    UPDATE followers
    SET kind = kind, on_error = on_error, revision = followers.revision + 1,
        changed_at = clock_timestamp()
    WHERE followers.name = name;
    RETURN true;
END $$;

UPDATE eclusa_schema SET version = 6;
