-- Up to which position the events of each reaction are marked as processed; of a removed one too. A table of its own:
-- lanes refer to the rows of `reactions` in each of their steps. The position is in the key, so that the newest is
-- found at once however many former ones an old snapshot keeps; pages that are mostly empty have the planner use it.
CREATE TABLE reaction_marks (
    reaction integer NOT NULL,
    marked_to bigint NOT NULL,
    PRIMARY KEY (reaction, marked_to)
) WITH (fillfactor = 10);

INSERT INTO reaction_marks (reaction, marked_to)
SELECT known.id, coalesce((SELECT position FROM follower_positions WHERE follower = 'reactions:processed'
                           ORDER BY n DESC LIMIT 1), 0)
FROM (SELECT id FROM reactions UNION ALL SELECT id FROM removed_reactions) AS known;

-- Where each reaction is: marked up to here, and decided by all its lanes up to there. A removed one has no name and
-- nothing to decide.
CREATE VIEW reaction_positions AS
SELECT known.id AS reaction, known.name, marks.marked_to, lanes.decided_to
FROM (SELECT id, name FROM reactions UNION ALL SELECT id, NULL FROM removed_reactions) AS known
CROSS JOIN LATERAL (SELECT marked_to FROM reaction_marks
                    WHERE reaction = known.id ORDER BY marked_to DESC LIMIT 1) AS marks
LEFT JOIN (SELECT split_part(f.name, ':', 1) AS reaction, min(p.position) AS decided_to FROM followers AS f
           CROSS JOIN LATERAL (SELECT position FROM follower_positions
                               WHERE follower = f.name ORDER BY n DESC LIMIT 1) AS p
           WHERE f.kind = 'reaction' GROUP BY 1) AS lanes ON lanes.reaction = known.name;

-- A new reaction is marked up to where its lanes begin. What a declaration replaces at its own position is left as that
-- of a removed reaction: a transaction that began before may still write events of these types as not processed.
DO $$
BEGIN
    EXECUTE replace(replace(pg_get_functiondef('eclusa_declare_reaction'::regproc), 'FOR i IN 0 .. lanes - 1 LOOP',
                            'INSERT INTO reaction_marks (reaction, marked_to)
    SELECT r.id, from_here FROM reactions AS r WHERE r.name = name AND is_new;
    FOR i IN 0 .. lanes - 1 LOOP'), 'IF NOT is_new THEN', 'IF NOT is_new THEN
        WITH replaced AS (
            INSERT INTO removed_reactions (id, types, until)
            SELECT nextval(pg_get_serial_sequence(''reactions'', ''id'')), d.types, here
            FROM follower_declarations AS d
            WHERE d.follower = name || '':0'' AND d.holds_from = here AND d.types <> types
            RETURNING id
        )
        INSERT INTO reaction_marks (reaction, marked_to) SELECT id, here FROM replaced;');
END $$;

-- An earlier release marks the event of a run of the queue by the one position of all reactions.
UPDATE eclusa_schema SET version = 8, oldest_compatible = 8;
