DROP TABLE follower_replays;
DROP TABLE follower_positions;
DROP TABLE follower_declarations;
DROP TABLE followers;
DROP TABLE log_floor;
UPDATE eclusa_schema SET version = 5;
