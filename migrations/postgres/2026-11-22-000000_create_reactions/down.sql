DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('eclusa_record'::regproc), 'NOT eclusa_has_reaction(event_type)', 'true');
END $$;
DROP FUNCTION eclusa_has_reaction;
DROP FUNCTION eclusa_declare_reaction;
DELETE FROM followers WHERE name LIKE '%:%';
DROP TABLE reaction_counts;
DROP SEQUENCE reaction_claims;
DROP TABLE reaction_queue;
DROP TABLE reaction_runs;
DROP TABLE reaction_epochs;
DROP TABLE removed_reactions;
ALTER TABLE follower_positions DROP COLUMN begun;
ALTER TABLE follower_declarations DROP COLUMN spec;
DROP TABLE reactions;
UPDATE eclusa_schema SET version = 6;
