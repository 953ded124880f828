-- The last position of which the retention has deleted an event. A reader that goes on from a position before it has
-- missed some.
ALTER TABLE log_floor ADD COLUMN deleted_to BIGINT NOT NULL DEFAULT 0;

-- What was deleted by an earlier release lies before the first event that is left.
UPDATE log_floor SET deleted_to = coalesce(
    (SELECT min(id) - 1 FROM user_interactions),
    (SELECT seq FROM sqlite_sequence WHERE name = 'user_interactions'),
    0
)
WHERE complete_since IS NOT NULL;

UPDATE eclusa_schema SET version = 12;
