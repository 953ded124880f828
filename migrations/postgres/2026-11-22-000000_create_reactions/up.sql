-- Named handlers of events. `id` is another one when a reaction was removed and declared again. Each lane of
-- a reaction is a follower of the kind `reaction` with the name `NAME:LANE`.
CREATE TABLE reactions (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    paused boolean NOT NULL DEFAULT false,
    declared_at timestamptz NOT NULL DEFAULT now()
);

-- Of a lane: the number of lanes, and by what events are selected and distributed.
ALTER TABLE follower_declarations ADD COLUMN spec jsonb;

-- Of a lane: how many handlers may have been started for events behind the position; 0 after a clean end.
ALTER TABLE follower_positions ADD COLUMN begun integer NOT NULL DEFAULT 0;

-- What was removed, until its outcomes are deleted and its events are marked as processed: those of these types up to
-- this position, and what writers that did not know of it yet have written behind.
CREATE TABLE removed_reactions (
    id integer PRIMARY KEY,
    types text[] NOT NULL,
    until bigint NOT NULL,
    removed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The partitions of `reaction_runs`: an epoch has the positions behind `from_position`, up to the next epoch's. A
-- row begins one under the lock of the numbering, so that no position behind it is known to a statement that does not
-- see the row.
CREATE TABLE reaction_epochs (
    epoch integer PRIMARY KEY,
    from_position bigint NOT NULL UNIQUE,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When all lanes were seen to be behind it. Null again as soon as one is not, or is to begin before.
    passed_at timestamptz
);
INSERT INTO reaction_epochs (epoch, from_position) VALUES (0, 0);

-- What became of the runs: a row as soon as the first attempt is decided. `open` are those that `reaction_queue`
-- holds. A pure function of the position, `epoch` changes nothing about what is unique.
CREATE TABLE reaction_runs (
    reaction integer NOT NULL,
    position bigint NOT NULL,
    epoch integer NOT NULL,
    event_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'succeeded', 'failed', 'cancelled')),
    attempts integer NOT NULL,
    -- Null while it is open.
    finished_at timestamptz,
    -- Of the last attempt.
    duration_us bigint,
    worker text,
    error text,
    -- The attempts before, as a JSON array. Null for a run that is open, or was never in the queue.
    history jsonb,
    PRIMARY KEY (reaction, position, epoch)
) PARTITION BY LIST (epoch);
CREATE INDEX reaction_runs_not_succeeded_idx ON reaction_runs (reaction, state, position) WHERE state <> 'succeeded';
-- For the retention: runs that may have ended long after their position.
CREATE INDEX reaction_runs_late_idx ON reaction_runs (finished_at) WHERE history IS NOT NULL;
CREATE TABLE reaction_runs_0 PARTITION OF reaction_runs FOR VALUES IN (0);

-- Runs that are due later: attempts after the first, and what is scheduled. `event` is a copy, so that a run outlives
-- the retention of the log.
CREATE TABLE reaction_queue (
    reaction integer NOT NULL REFERENCES reactions (id) ON DELETE CASCADE,
    position bigint NOT NULL,
    epoch integer NOT NULL,
    event_id uuid NOT NULL,
    event jsonb NOT NULL,
    order_key text,
    unique_key text,
    -- For a claimed run the end of the claim. Infinity for one that waits for an earlier one of its order key.
    due timestamptz NOT NULL,
    attempts integer NOT NULL,
    -- Attempts that do not count towards the most that are allowed: those before it was reprocessed, and those that were
    -- lost with their process beside another run that may have ended it.
    attempts_before integer NOT NULL DEFAULT 0,
    -- Takes turns with others like it: a process may have ended by it.
    alone boolean NOT NULL DEFAULT false,
    -- Of the claim; null for a run that is not claimed.
    token bigint,
    worker text,
    claimed_at timestamptz,
    history jsonb NOT NULL DEFAULT '[]',
    PRIMARY KEY (reaction, position)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX reaction_queue_due_idx ON reaction_queue (reaction, due);
CREATE INDEX reaction_queue_order_idx ON reaction_queue (reaction, order_key, position) WHERE order_key IS NOT NULL;
CREATE INDEX reaction_queue_unique_idx ON reaction_queue (reaction, unique_key) WHERE unique_key IS NOT NULL;
CREATE INDEX reaction_queue_event_idx ON reaction_queue (event_id);

CREATE SEQUENCE reaction_claims AS bigint;

-- How many runs have succeeded: the sum of the rows, which are appended, and added up later.
CREATE TABLE reaction_counts (
    reaction integer NOT NULL REFERENCES reactions (id) ON DELETE CASCADE,
    succeeded bigint NOT NULL
);
CREATE INDEX reaction_counts_reaction_idx ON reaction_counts (reaction);

-- Declares a reaction, or what it reacts to from now on: all its lanes at one position, under the lock of the numbering
-- (see eclusa_declare_follower). Returns whether anything has changed.
CREATE FUNCTION eclusa_declare_reaction(
    name text, types text[], spec jsonb, lanes integer, from_now boolean
) RETURNS boolean LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    durable text := current_setting('synchronous_commit');
    done record;
    here bigint;
    from_here bigint;
    known record;
    lane text;
    is_new boolean;
    is_paused boolean;
BEGIN
    LOOP
        SELECT * INTO done FROM eclusa_number_commits();
        EXIT WHEN done.numbered < 50000;
    END LOOP;
    PERFORM set_config('synchronous_commit', durable, true);
    here := CASE done.last WHEN 0 THEN 0 ELSE done.last << 12 | 4095 END;
    INSERT INTO reactions (name) VALUES (name) ON CONFLICT DO NOTHING;
    is_new := FOUND;
    SELECT r.paused INTO STRICT is_paused FROM reactions AS r WHERE r.name = name;
    SELECT d.types, d.spec INTO known FROM follower_declarations AS d
    WHERE d.follower = name || ':0' ORDER BY d.holds_from DESC LIMIT 1;
    IF (known.types, known.spec) IS NOT DISTINCT FROM (types, spec) THEN
        RETURN false;
    END IF;
    from_here := here;
    IF is_new AND NOT from_now THEN
        from_here := 0;
        -- The retention locks it before it looks for followers.
        PERFORM FROM log_floor FOR SHARE;
        UPDATE reaction_epochs SET passed_at = NULL WHERE passed_at IS NOT NULL;
    END IF;
    -- Lanes of an earlier declaration that have nothing left to do.
    DELETE FROM followers AS f WHERE f.kind = 'reaction' AND f.name LIKE replace(name, '_', '\_') || ':%'
        AND split_part(f.name, ':', 2)::integer >= greatest(lanes, (known.spec->>'lanes')::integer)
        AND (SELECT p.position FROM follower_positions AS p WHERE p.follower = f.name ORDER BY p.n DESC LIMIT 1)
            >= (SELECT max(d.holds_from) FROM follower_declarations AS d WHERE d.follower = f.name);
    FOR i IN 0 .. lanes - 1 LOOP
        lane := name || ':' || i;
        INSERT INTO followers (name, kind, on_error, state)
        VALUES (lane, 'reaction', 'stop', CASE WHEN is_paused THEN 'paused' ELSE 'running' END)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            UPDATE followers
            SET complete_since = (SELECT f.complete_since FROM log_floor AS f WHERE from_here = 0 AND is_new)
            WHERE followers.name = lane;
            INSERT INTO follower_declarations (follower, holds_from, types, spec)
            VALUES (lane, from_here, types, spec);
            INSERT INTO follower_positions (follower, n, position) VALUES (lane, 0, from_here);
        END IF;
    END LOOP;
    IF NOT is_new THEN
        INSERT INTO follower_declarations (follower, holds_from, types, spec)
        SELECT f.name, here, types, spec FROM followers AS f
        WHERE f.kind = 'reaction' AND f.name LIKE replace(name, '_', '\_') || ':%'
        ON CONFLICT (follower, holds_from) DO UPDATE SET types = excluded.types, spec = excluded.spec;
        UPDATE followers SET revision = followers.revision + 1, changed_at = clock_timestamp()
        WHERE kind = 'reaction' AND followers.name LIKE replace(name, '_', '\_') || ':%';
    END IF;
    RETURN true;
END $$;

-- Whether a reaction to events of this type is declared.
CREATE FUNCTION eclusa_has_reaction(event_type text) RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT EXISTS (
        SELECT FROM followers AS f JOIN follower_declarations AS d ON d.follower = f.name, unnest(d.types) AS t
        WHERE f.kind = 'reaction'
          AND event_type LIKE replace(replace(replace(replace(t, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
    )
$$;

-- What an application records is processed at once only if no reaction waits for it.
DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('eclusa_record'::regproc), 'day, true, ''sql''',
                    'day, NOT eclusa_has_reaction(event_type), ''sql''');
END $$;

UPDATE eclusa_schema SET version = 7;
