DROP VIEW reaction_positions;
DROP TABLE reaction_marks;
DROP TABLE removed_reactions;
UPDATE eclusa_schema SET version = 7, oldest_compatible = 1;
