-- The shards of `broker.order = "user"`: one row per work queue, under the virtual host and the name
-- of the queue. While `draining` is set the queues of these shards are worked off, nothing is
-- published to them, and no replica may enter.
CREATE TABLE shard_layouts (
    queue text PRIMARY KEY,
    shards smallint NOT NULL CHECK (shards BETWEEN 1 AND 256),
    prefetch integer NOT NULL CHECK (prefetch BETWEEN 1 AND 65535),
    draining boolean NOT NULL DEFAULT false
);

-- The replicas that run on a layout. A row is a lease: it is renewed until `until`, and may be
-- removed when that has passed and the broker no longer has the connection.
CREATE TABLE shard_replicas (
    queue text NOT NULL,
    replica uuid NOT NULL,
    connection uuid NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (queue, replica)
) WITH (fillfactor = 50);

UPDATE eclusa_schema SET version = 4;
