DO $$
BEGIN
    EXECUTE replace(replace(pg_get_functiondef('eclusa_declare_reaction'::regproc),
                            'INSERT INTO reaction_marks (reaction, marked_to)
    SELECT r.id, from_here FROM reactions AS r WHERE r.name = name AND is_new;
    ', ''), '
        WITH replaced AS (
            INSERT INTO removed_reactions (id, types, until)
            SELECT nextval(pg_get_serial_sequence(''reactions'', ''id'')), d.types, here
            FROM follower_declarations AS d
            WHERE d.follower = name || '':0'' AND d.holds_from = here AND d.types <> types
            RETURNING id
        )
        INSERT INTO reaction_marks (reaction, marked_to) SELECT id, here FROM replaced;', '');
END $$;
DROP VIEW reaction_positions;
DROP TABLE reaction_marks;
UPDATE eclusa_schema SET version = 7, oldest_compatible = 5;
