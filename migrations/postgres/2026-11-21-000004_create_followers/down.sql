DROP FUNCTION eclusa_declare_follower;
DROP TABLE follower_replays, follower_positions, follower_declarations, followers, log_floor;
UPDATE eclusa_schema SET version = 5;
