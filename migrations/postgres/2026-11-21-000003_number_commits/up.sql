-- The order of the log. A writing statement draws one block for its rows (`id = block << 12 | place`)
-- and leaves one row in `log_arrivals`. `eclusa_number_commits` gives what is committed its number. So
-- a reader of the numbers neither waits for an open transaction nor passes over one that commits late.
CREATE SEQUENCE log_blocks AS bigint;

-- Blocks that are written and not numbered yet. `buckets` and `types` may say more than the rows hold,
-- never less. Emptied all the time: vacuumed early.
CREATE TABLE log_arrivals (
    block bigint PRIMARY KEY,
    events integer NOT NULL CHECK (events BETWEEN 1 AND 4096),
    buckets date[] NOT NULL,
    types text[] NOT NULL,
    inserted_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE SEQUENCE log_commits_seq AS bigint;

-- The numbered blocks. The position of an event is `seq << 12 | place`. `numbered_at` never decreases
-- with `seq`.
CREATE TABLE log_commits (
    seq bigint PRIMARY KEY,
    block bigint NOT NULL UNIQUE,
    events integer NOT NULL,
    buckets date[] NOT NULL,
    types text[] NOT NULL,
    numbered_at timestamptz NOT NULL
);

-- Commits with events of other days than that of their number, for the retention: it asks who has events of a day
-- to read.
CREATE INDEX log_commits_other_days_idx ON log_commits (seq)
WHERE NOT buckets <@ ARRAY[(numbered_at AT TIME ZONE 'UTC')::date, date '0001-01-01'];

-- Which history the positions belong to. After a point-in-time recovery positions may come again for
-- other events; then the generation is another one.
CREATE TABLE log_generation (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    generation bigint NOT NULL,
    system_identifier bigint,
    timeline text,
    commits_oid oid,
    since timestamptz NOT NULL DEFAULT now()
);
INSERT INTO log_generation (generation) VALUES (1);

-- Those of these transactions that are still open.
CREATE FUNCTION eclusa_open_transactions(ids bigint[]) RETURNS bigint[]
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(array_agg(id), '{}') FROM unnest(ids) AS id
    WHERE NOT pg_visible_in_snapshot(id::text::xid8, pg_current_snapshot())
$$;

-- Numbers what is committed, in the order of blocks, at most 50,000 of them, and says how many that were
-- and which number is the last one. Call it as one statement of its own: a process that stops behind
-- it holds no lock. The lock comes first, in a statement of its own, so that the next one sees what
-- the last holder of the lock has done. The commit does not wait for the disk: what a follower makes of a
-- number is committed later, and reaches the disk no sooner. A number that is lost is given again.
--
-- While an old snapshot keeps dead rows in the table, a look at all of it takes the longer the more there
-- are. So it may begin above a block up to which everything is numbered but what `open` transactions have
-- written: as soon as one of these has ended, all is looked at. `later` are the open transactions of
-- a horizon to come. Both are returned without those that ended before the look.
CREATE FUNCTION eclusa_number_commits(
    above bigint DEFAULT 0, INOUT open bigint[] DEFAULT '{}', INOUT later bigint[] DEFAULT '{}',
    OUT numbered integer, OUT last bigint
)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    now timestamptz;
    lowest tid[];
    still bigint[];
    -- Whether the look begins above the horizon.
    partial boolean := above > 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7161677777369124866);
    IF open <> '{}' OR later <> '{}' THEN
        -- Asked once: a transaction that ends between two answers would be missed.
        still := eclusa_open_transactions(open);
        partial := partial AND still = open;
        open := still;
        later := eclusa_open_transactions(later);
    END IF;
    IF partial THEN
        -- Only the holder of the lock deletes rows, and none is updated: a row stays where it is.
        lowest := ARRAY(SELECT ctid FROM log_arrivals WHERE block > above
                        ORDER BY block LIMIT 50000);
        -- A transaction that ended before the look has ended by now. In a database that was taken back to an
        -- earlier state the block may be yet to be drawn.
        partial := eclusa_open_transactions(open) = open
            AND above <= (SELECT last_value FROM log_blocks);
    END IF;
    IF NOT partial THEN
        -- With `+ 0` the order does not come from the index, whose entries of dead rows would each be
        -- looked up.
        lowest := ARRAY(SELECT ctid FROM log_arrivals ORDER BY block + 0 LIMIT 50000);
    END IF;
    numbered := cardinality(lowest);
    IF numbered > 0 THEN
        PERFORM set_config('synchronous_commit', 'off', true);
        now := greatest(clock_timestamp(),
                        (SELECT numbered_at FROM log_commits ORDER BY seq DESC LIMIT 1));
        WITH taken AS (
            DELETE FROM log_arrivals WHERE ctid = ANY (lowest)
            RETURNING block, events, buckets, types
        )
        INSERT INTO log_commits (seq, block, events, buckets, types, numbered_at)
        SELECT nextval('log_commits_seq'), block, events, buckets, types, now
        FROM (SELECT * FROM taken ORDER BY block) AS ordered;
    END IF;
    last := coalesce((SELECT seq FROM log_commits ORDER BY seq DESC LIMIT 1), 0);
END $$;

-- The last block drawn, and the transactions that may still write blocks up to it. A transaction has its
-- number before it draws a block: the number is lower than that of this one, which comes after the look at
-- the sequence.
CREATE FUNCTION eclusa_log_horizon(OUT block bigint, OUT open bigint[])
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    next bigint;
BEGIN
    SELECT last_value INTO block FROM log_blocks;
    next := pg_current_xact_id()::text::bigint;
    -- What a snapshot lists as open lies below its `xmax`; all from there on is open too.
    SELECT ARRAY(SELECT id::text::bigint FROM pg_snapshot_xip(here) AS id WHERE id::text::bigint < next
                 UNION ALL
                 SELECT generate_series(pg_snapshot_xmax(here)::text::bigint, next - 1))
    INTO open FROM pg_current_snapshot() AS here;
END $$;

-- The generation of the positions; another one when the database has become another: restored into
-- another cluster, promoted or recovered (another timeline), or loaded from a dump (another table). Also
-- sets the sequences above everything stored, which a dump of single tables does not.
CREATE FUNCTION eclusa_log_generation() RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    here record;
    known log_generation;
    highest bigint;
BEGIN
    SELECT * INTO STRICT known FROM log_generation;
    IF pg_is_in_recovery() THEN
        RETURN known.generation;
    END IF;
    BEGIN
        SELECT system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline,
               'log_commits'::regclass::oid AS commits_oid
        INTO here FROM pg_control_system();
    EXCEPTION WHEN insufficient_privilege THEN
        -- A role that may not see them changes nothing of what another has seen.
        SELECT known.system_identifier, known.timeline, 'log_commits'::regclass::oid AS commits_oid
        INTO here;
    END;
    IF (here.system_identifier, here.timeline, here.commits_oid) IS NOT DISTINCT FROM
       (known.system_identifier, known.timeline, known.commits_oid) THEN
        RETURN known.generation;
    END IF;
    SELECT * INTO STRICT known FROM log_generation FOR UPDATE;
    IF (here.system_identifier, here.timeline, here.commits_oid) IS NOT DISTINCT FROM
       (known.system_identifier, known.timeline, known.commits_oid) THEN
        RETURN known.generation;
    END IF;
    highest := greatest((SELECT max(block) FROM log_commits), (SELECT max(block) FROM log_arrivals));
    IF highest >= (SELECT last_value FROM log_blocks) THEN
        PERFORM setval('log_blocks', highest);
    END IF;
    highest := (SELECT max(seq) FROM log_commits);
    IF highest >= (SELECT last_value FROM log_commits_seq) THEN
        PERFORM setval('log_commits_seq', highest);
    END IF;
    UPDATE log_generation
    SET generation = generation + CASE WHEN known.commits_oid IS NULL THEN 0 ELSE 1 END,
        system_identifier = here.system_identifier, timeline = here.timeline,
        commits_oid = here.commits_oid, since = clock_timestamp()
    RETURNING * INTO known;
    RETURN known.generation;
END $$;

-- What the log holds already gets its headers: batches of an earlier release have their rows together.
-- Writers of that release wait, and then fail on the missing sequence; the schema refuses them.
LOCK TABLE user_interactions IN SHARE ROW EXCLUSIVE MODE;

INSERT INTO log_commits (seq, block, events, buckets, types, numbered_at)
SELECT nextval('log_commits_seq'), block, events, buckets, types, clock_timestamp()
FROM (SELECT id >> 12 AS block, count(*) AS events, array_agg(DISTINCT bucket) AS buckets,
             array_agg(DISTINCT event_type) AS types
      FROM user_interactions GROUP BY id >> 12 ORDER BY block) AS existing;

SELECT setval('log_blocks', greatest(1, (SELECT max(block) FROM log_commits)));

ALTER TABLE user_interactions ALTER COLUMN id DROP DEFAULT;
DROP SEQUENCE user_interactions_id_seq;
-- Takes its index along.
ALTER TABLE user_interactions DROP COLUMN transaction;

-- The partition of an event: the UTC day of an id that carries a time, else 0001-01-01. The same as
-- `event::id::bucket`.
CREATE FUNCTION eclusa_bucket(event_id uuid) RETURNS date
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE
        WHEN get_byte(uuid_send(event_id), 6) >> 4 = 7 OR get_byte(uuid_send(event_id), 6) >> 3 = 17
        THEN date '1970-01-01' + (
            (('x' || encode(substring(uuid_send(event_id) FROM 1 FOR 6), 'hex'))::bit(48)::bigint)
            / 86400000)::integer
        ELSE date '0001-01-01'
    END
$$;

-- Records an event inside the caller's transaction: what the transaction does and the event are
-- committed together, or neither. Returns the event's id; an id that the log has already stores
-- nothing. It makes no partition: an event of a day that has none gets an id without a day.
CREATE FUNCTION eclusa_record(
    event_type text,
    event_data jsonb DEFAULT '{}',
    user_id text DEFAULT NULL,
    session_id text DEFAULT NULL,
    event_id uuid DEFAULT NULL,
    occurred_at timestamptz DEFAULT NULL,
    producer text DEFAULT 'sql'
) RETURNS uuid LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    now timestamptz := clock_timestamp();
    day date;
    block bigint;
BEGIN
    IF coalesce(event_type, '') = '' THEN
        RAISE EXCEPTION 'event_type is empty' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF event_data IS NULL OR jsonb_typeof(event_data) <> 'object' THEN
        RAISE EXCEPTION 'event_data must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF occurred_at < timestamptz '0001-01-01 00:00:00+00' OR occurred_at >= timestamptz '10000-01-01 00:00:00+00' THEN
        RAISE EXCEPTION 'occurred_at % is outside of the years 1 to 9999', occurred_at
            USING ERRCODE = 'datetime_field_overflow';
    END IF;
    IF event_id IS NULL THEN
        -- A UUIDv7: the time over the first 48 bits of a random UUID, and 4 turned into 7.
        event_id := encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
            substring(int8send(floor(extract(epoch FROM now) * 1000)::bigint) FROM 3)
            FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid;
        day := eclusa_bucket(event_id);
        IF to_regclass('user_interactions_' || to_char(day, 'YYYYMMDD')) IS NULL THEN
            event_id := gen_random_uuid();
        END IF;
    ELSE
        day := eclusa_bucket(event_id);
        IF day <> date '0001-01-01'
           AND to_regclass('user_interactions_' || to_char(day, 'YYYYMMDD')) IS NULL THEN
            RAISE EXCEPTION 'event_id % is of the day %, for which the log has no partition', event_id, day
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Use an id of a day from today to 30 days ahead, or a UUID without a time.';
        END IF;
    END IF;
    day := eclusa_bucket(event_id);
    -- The number of the transaction comes first; see eclusa_log_horizon.
    PERFORM pg_current_xact_id();
    block := nextval('log_blocks');
    INSERT INTO user_interactions
        (id, "timestamp", received_at, event_id, bucket, processed, source, producer, event_type,
         user_id, session_id, event_data)
    VALUES (block << 12, coalesce(occurred_at, now), now, event_id, day, true, 'sql', producer,
            event_type, user_id, session_id, event_data)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO log_arrivals (block, events, buckets, types)
        VALUES (block, 1, ARRAY[day], ARRAY[event_type]);
    END IF;
    RETURN event_id;
END $$;

UPDATE eclusa_schema SET version = 5, oldest_compatible = 5;
