-- What was removed, until its events up to this position are marked as processed. 0 stands for all that were removed
-- before this migration.
CREATE TABLE removed_reactions (
    id INTEGER PRIMARY KEY NOT NULL,
    until BIGINT NOT NULL
);

INSERT INTO removed_reactions (id, until)
SELECT 0, coalesce((SELECT max(id) FROM user_interactions), 0) FROM followers WHERE name = 'reactions:processed';

-- Up to which position the events of each reaction are marked as processed; of a removed one too.
CREATE TABLE reaction_marks (
    reaction INTEGER PRIMARY KEY NOT NULL,
    marked_to BIGINT NOT NULL
);

INSERT INTO reaction_marks (reaction, marked_to)
SELECT known.id, coalesce((SELECT position FROM follower_positions WHERE follower = 'reactions:processed'
                           ORDER BY n DESC LIMIT 1), 0)
FROM (SELECT id FROM reactions UNION ALL SELECT id FROM removed_reactions) AS known;

-- Where each reaction is: marked up to here, and decided by all its lanes up to there. A removed one has no name and
-- nothing to decide.
CREATE VIEW reaction_positions AS
SELECT known.id AS reaction, known.name, marks.marked_to,
       (SELECT min((SELECT p.position FROM follower_positions AS p WHERE p.follower = f.name ORDER BY p.n DESC LIMIT 1))
        FROM followers AS f
        WHERE f.kind = 'reaction' AND f.name > known.name || ':' AND f.name < known.name || ';') AS decided_to
FROM (SELECT id, name FROM reactions UNION ALL SELECT id, NULL FROM removed_reactions) AS known
JOIN reaction_marks AS marks ON marks.reaction = known.id;

-- An earlier release marks the event of a run of the queue by the one position of all reactions.
UPDATE eclusa_schema SET version = 8, oldest_compatible = 8;
