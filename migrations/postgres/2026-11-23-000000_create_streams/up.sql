-- Declared pull streams.
CREATE TABLE streams (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    declared_at timestamptz NOT NULL DEFAULT now()
);

-- Signs the tokens of collectors, one for all processes.
CREATE TABLE stream_secret (secret bytea NOT NULL);
INSERT INTO stream_secret VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- Messages that are not acknowledged. `number` counts within the key, in the order of the log. No row is updated: one
-- is inserted, and deleted when it is acknowledged.
CREATE TABLE stream_messages (
    stream integer NOT NULL,
    key text NOT NULL,
    number bigint NOT NULL,
    event_id uuid NOT NULL,
    order_key text,
    -- What collectors get, as JSON.
    body text NOT NULL,
    -- When it could be handed out first.
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, key, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Live sessions of collectors, each in a slot of its key.
CREATE TABLE stream_sessions (
    id bigint PRIMARY KEY,
    stream integer NOT NULL,
    key text NOT NULL,
    slot integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (stream, key, slot)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE SEQUENCE stream_session_ids AS bigint;

-- States of sessions: the newest row of a session is its state, and the newest of a key has the key's cursor. Each
-- call appends one and deletes those that it replaces. The row of a call that only ends sessions has no session.
CREATE TABLE stream_answers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream integer NOT NULL,
    key text NOT NULL,
    session bigint,
    -- The newest answer of the session that had messages.
    n integer NOT NULL,
    -- Of that answer, what is not acknowledged.
    numbers bigint[] NOT NULL,
    -- How often each was handed out.
    deliveries integer[] NOT NULL,
    -- All messages of the key up to this number were handed out, or wait in the two tables below.
    cursor bigint NOT NULL,
    expires_at timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX stream_answers_key_idx ON stream_answers (stream, key, id);
CREATE INDEX stream_answers_session_idx ON stream_answers (session, id);

-- Messages that have been with a session and are with none now.
CREATE TABLE stream_returned (
    stream integer NOT NULL,
    key text NOT NULL,
    number bigint NOT NULL,
    order_key text,
    deliveries integer NOT NULL,
    due timestamptz NOT NULL,
    PRIMARY KEY (stream, key, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX stream_returned_order_idx ON stream_returned (stream, key, order_key, number) WHERE order_key IS NOT NULL;

-- Messages up to the cursor that have been with no session: earlier ones of their order key are, or are to return.
CREATE TABLE stream_parked (
    stream integer NOT NULL,
    key text NOT NULL,
    order_key text NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (stream, key, order_key, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Parties of Pix messages: payers and receivers.
CREATE TABLE clients (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    -- CPF or CNPJ, digits only.
    document text NOT NULL,
    ispb text NOT NULL,
    branch text NOT NULL,
    account text NOT NULL,
    account_type text NOT NULL CHECK (account_type IN ('CACC', 'SVGS', 'SLRY', 'TRAN')),
    UNIQUE (ispb, branch, account, account_type, document, name)
);

CREATE TABLE pix_messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    end_to_end_id text NOT NULL UNIQUE,
    event_id uuid NOT NULL,
    payer_id bigint NOT NULL REFERENCES clients (id),
    receiver_id bigint NOT NULL REFERENCES clients (id),
    amount numeric(18, 2) NOT NULL CHECK (amount > 0),
    free_text text NOT NULL,
    tx_id text NOT NULL,
    paid_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX pix_messages_payer_idx ON pix_messages (payer_id);
CREATE INDEX pix_messages_receiver_idx ON pix_messages (receiver_id);

UPDATE eclusa_schema SET version = 10;
