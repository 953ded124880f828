-- With one writer, `id` is the order of commits, and a position is an `id`.

-- Which history the positions belong to. Raised by command after the file was restored from a copy.
CREATE TABLE log_generation (
    single INTEGER PRIMARY KEY NOT NULL DEFAULT 1 CHECK (single = 1),
    generation BIGINT NOT NULL
);
INSERT INTO log_generation (generation) VALUES (1);

UPDATE eclusa_schema SET version = 5;
