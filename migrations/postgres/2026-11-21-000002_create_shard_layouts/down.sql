DROP TABLE shard_replicas;
DROP TABLE shard_layouts;
UPDATE eclusa_schema SET version = 3;
