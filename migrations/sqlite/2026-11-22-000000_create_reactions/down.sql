DELETE FROM followers WHERE name LIKE '%:%';
DROP TABLE reaction_counts;
DROP TABLE reaction_queue;
DROP TABLE reaction_runs;
ALTER TABLE follower_positions DROP COLUMN begun;
ALTER TABLE follower_declarations DROP COLUMN spec;
DROP TABLE reactions;
UPDATE eclusa_schema SET version = 6;
