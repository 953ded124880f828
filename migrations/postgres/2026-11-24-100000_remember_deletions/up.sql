-- The last position of which the retention has deleted an event. A reader that goes on from a position before it has
-- missed some.
ALTER TABLE log_floor ADD COLUMN deleted_to bigint NOT NULL DEFAULT 0;

-- What was deleted by an earlier release: at most up to the commits of the days that are complete.
UPDATE log_floor SET deleted_to = greatest(
    0,
    (SELECT min(seq) - 1 FROM log_commits) << 12 | 4095,
    (SELECT max(seq) FROM log_commits WHERE (numbered_at AT TIME ZONE 'UTC')::date < complete_since) << 12 | 4095
)
WHERE complete_since IS NOT NULL;

UPDATE eclusa_schema SET version = 12;
