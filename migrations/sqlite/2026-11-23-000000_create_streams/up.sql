-- Declared pull streams. Times are microseconds since 1970 in UTC.
CREATE TABLE streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    declared_at BIGINT NOT NULL
);

-- Signs the tokens of collectors.
CREATE TABLE stream_secret (secret BLOB NOT NULL PRIMARY KEY) WITHOUT ROWID;
INSERT INTO stream_secret VALUES (randomblob(32));

-- Messages that are not acknowledged. `number` counts within the key, in the order of the log.
CREATE TABLE stream_messages (
    stream INTEGER NOT NULL,
    key TEXT NOT NULL,
    number BIGINT NOT NULL,
    event_id BLOB NOT NULL,
    order_key TEXT,
    -- What collectors get, as JSON.
    body TEXT NOT NULL,
    -- When it could be handed out first.
    since BIGINT NOT NULL,
    PRIMARY KEY (stream, key, number)
) WITHOUT ROWID;

-- Live sessions of collectors, each in a slot of its key.
CREATE TABLE stream_sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    stream INTEGER NOT NULL,
    key TEXT NOT NULL,
    slot INTEGER NOT NULL,
    started_at BIGINT NOT NULL,
    UNIQUE (stream, key, slot)
);

-- States of sessions: the newest row of a session is its state, and the newest of a key has the key's cursor. The row
-- of a call that only ends sessions has no session.
CREATE TABLE stream_answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    stream INTEGER NOT NULL,
    key TEXT NOT NULL,
    session BIGINT,
    -- The newest answer of the session that had messages.
    n INTEGER NOT NULL,
    -- Of that answer, what is not acknowledged: a JSON array of numbers and deliveries.
    handed TEXT NOT NULL,
    -- All messages of the key up to this number were handed out, or wait in the two tables below.
    cursor BIGINT NOT NULL,
    expires_at BIGINT
);
CREATE INDEX stream_answers_key_idx ON stream_answers (stream, key, id);
CREATE INDEX stream_answers_session_idx ON stream_answers (session, id);

-- Messages that have been with a session and are with none now.
CREATE TABLE stream_returned (
    stream INTEGER NOT NULL,
    key TEXT NOT NULL,
    number BIGINT NOT NULL,
    order_key TEXT,
    deliveries INTEGER NOT NULL,
    due BIGINT NOT NULL,
    PRIMARY KEY (stream, key, number)
) WITHOUT ROWID;
CREATE INDEX stream_returned_order_idx ON stream_returned (stream, key, order_key, number) WHERE order_key IS NOT NULL;

-- Messages up to the cursor that have been with no session: earlier ones of their order key are, or are to return.
CREATE TABLE stream_parked (
    stream INTEGER NOT NULL,
    key TEXT NOT NULL,
    order_key TEXT NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (stream, key, order_key, number)
) WITHOUT ROWID;

-- Parties of Pix messages: payers and receivers.
CREATE TABLE clients (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL,
    -- CPF or CNPJ, digits only.
    document TEXT NOT NULL,
    ispb TEXT NOT NULL,
    branch TEXT NOT NULL,
    account TEXT NOT NULL,
    account_type TEXT NOT NULL CHECK (account_type IN ('CACC', 'SVGS', 'SLRY', 'TRAN')),
    UNIQUE (ispb, branch, account, account_type, document, name)
);

CREATE TABLE pix_messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    end_to_end_id TEXT NOT NULL UNIQUE,
    event_id BLOB NOT NULL,
    payer_id INTEGER NOT NULL REFERENCES clients (id),
    receiver_id INTEGER NOT NULL REFERENCES clients (id),
    amount_cents BIGINT NOT NULL CHECK (amount_cents > 0),
    free_text TEXT NOT NULL,
    tx_id TEXT NOT NULL,
    paid_at BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL
);
CREATE INDEX pix_messages_payer_idx ON pix_messages (payer_id);
CREATE INDEX pix_messages_receiver_idx ON pix_messages (receiver_id);

UPDATE eclusa_schema SET version = 10;
