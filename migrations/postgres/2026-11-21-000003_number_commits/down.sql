DROP FUNCTION eclusa_record;
DROP FUNCTION eclusa_bucket;
DROP FUNCTION eclusa_log_generation;
DROP FUNCTION eclusa_log_horizon;
DROP FUNCTION eclusa_number_commits;
DROP FUNCTION eclusa_open_transactions;
CREATE SEQUENCE user_interactions_id_seq AS bigint;
ALTER SEQUENCE user_interactions_id_seq OWNED BY user_interactions.id;
SELECT setval('user_interactions_id_seq', greatest(1, (SELECT max(id) FROM user_interactions)));
ALTER TABLE user_interactions ALTER COLUMN id SET DEFAULT nextval('user_interactions_id_seq');
ALTER TABLE user_interactions
    ADD COLUMN transaction bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint;
CREATE INDEX user_interactions_commit_idx ON user_interactions (transaction, id);
DROP TABLE log_arrivals, log_commits, log_generation;
DROP SEQUENCE log_blocks, log_commits_seq;
UPDATE eclusa_schema SET version = 4, oldest_compatible = 1;
