-- A run with a key that was opened again. It is not claimed before the lane of its key has released it: a run of the same
-- key may be under way there that has no row yet.
ALTER TABLE reaction_queue ADD COLUMN reopened boolean NOT NULL DEFAULT false;
CREATE INDEX reaction_queue_reopened_idx ON reaction_queue (reaction, position) WHERE reopened;

UPDATE eclusa_schema SET version = 9;
