DO $$
BEGIN
    EXECUTE replace(pg_get_functiondef('eclusa_declare_reaction'::regproc),
                    'INSERT INTO reaction_marks (reaction, marked_to)
    SELECT r.id, from_here FROM reactions AS r WHERE r.name = name AND is_new;
    ', '');
END $$;
DROP VIEW reaction_positions;
DROP TABLE reaction_marks;
UPDATE eclusa_schema SET version = 7, oldest_compatible = 5;
