//! What a run finds that comes behind others: messages that were collected before.
//!
//! They are written by SQL while no server runs, as a real run would have left them: events in the log that all
//! followers have passed, with the numbers of their commits; the messages' rows and their parties; and for each ISPB a
//! cursor behind them.
//!
//! On PostgreSQL the rows that a real run deletes are inserted and deleted too: each message under its key, an answer
//! for each ten of them, the sessions. A tenth of the messages at a time, and then a vacuum, in place of the one that
//! comes by itself; what the last tenth has left is still there when the run begins. While a snapshot is held open,
//! a vacuum can remove nothing of it, and all dead rows are there. SQLite keeps no deleted rows.
//!
//! Unlike those of a real run the deleted rows lie in the order of the log, sessions take turns exactly, and a row of
//! the log's headers has 4,096 events.

use crate::messages::{FIRST_ISPB, TEMPLATE};
use crate::place::Place;
use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use tokio_postgres::Client;

/// Parts that are vacuumed one after the other.
const PARTS: usize = 10;
/// The first id of an event that is written here: the first place of a block that no server has drawn.
const FIRST_ID: usize = 2 << 12;

/// Sessions of an ISPB.
const SESSIONS: usize = 6;

/// The messages from one number to another, on PostgreSQL.
fn part(from: usize, to: usize, ispbs: usize) -> String {
    format!(
        "CREATE TEMP TABLE part AS \
         SELECT n, lpad(n::text, 11, '0') AS digits, ({FIRST_ISPB} + n % {ispbs})::text AS ispb, \
                n / {ispbs} + 1 AS number, \
                encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING \
                    substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) \
                    FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid AS event_id, \
                replace(replace('{TEMPLATE}', '{{n}}', lpad(n::text, 11, '0')), \
                        '{{ispb}}', ({FIRST_ISPB} + n % {ispbs})::text) AS body \
         FROM generate_series({from}::bigint, {to} - 1) AS n"
    )
}

/// What stays of a part.
fn kept() -> [String; 3] {
    [
        "INSERT INTO clients (id, name, document, ispb, branch, account, account_type) OVERRIDING SYSTEM VALUE \
         SELECT 2 * n + 1, 'Marcos José', '98716278190', '32074986', '0001', digits, 'CACC' FROM part \
         UNION ALL SELECT 2 * n + 2, 'Flavio José', '77615678291', ispb, '0361', digits, 'SVGS' FROM part"
            .to_owned(),
        "INSERT INTO pix_messages \
             (id, end_to_end_id, event_id, payer_id, receiver_id, amount, free_text, tx_id, paid_at) \
         OVERRIDING SYSTEM VALUE \
         SELECT n + 1, 'E32074986202601310930' || digits, event_id, 2 * n + 1, 2 * n + 2, 90.20, '', \
                'h7a786d8a7s6gd1hgs', now() FROM part"
            .to_owned(),
        format!(
            "INSERT INTO user_interactions \
                 (id, event_id, bucket, processed, source, producer, event_type, user_id, event_data) \
             SELECT {FIRST_ID} + n, event_id, eclusa_bucket(event_id), true, 'http', 'default', \
                    'pix.message.received', '77615678291', body::jsonb FROM part"
        ),
    ]
}

/// What goes of a part.
fn collected(stream: i32) -> [String; 4] {
    [
        format!(
            "INSERT INTO stream_messages (stream, key, number, event_id, body) \
             SELECT {stream}, ispb, number, event_id, body FROM part ORDER BY n"
        ),
        format!(
            "INSERT INTO stream_answers (stream, key, session, n, numbers, deliveries, cursor, expires_at) \
             SELECT {stream}, ispb, (ispb::bigint - {FIRST_ISPB}) * {SESSIONS} + (number - 1) / 10 % {SESSIONS} + 1, \
                    (number - 1) / 10 / {SESSIONS} + 1, array_agg(number), array_agg(1), max(number), now() \
             FROM part GROUP BY ispb, (number - 1) / 10 ORDER BY min(n)"
        ),
        // The row of the call that ended the last session.
        format!(
            "WITH gone AS (DELETE FROM stream_answers) \
             INSERT INTO stream_answers (stream, key, n, numbers, deliveries, cursor) \
             SELECT {stream}, ispb, 0, '{{}}', '{{}}', max(number) FROM part GROUP BY ispb"
        ),
        "DELETE FROM stream_messages".to_owned(),
    ]
}

/// The log's headers of all, and the places of what counts them.
fn headers(messages: usize) -> String {
    // A block has the number of its commit and one more.
    let last = (FIRST_ID + messages - 1) >> 12;
    format!(
        "INSERT INTO log_commits (seq, block, events, buckets, types, numbered_at) \
         SELECT block - 1, block, count(*), ARRAY[(now() AT TIME ZONE 'UTC')::date], \
                ARRAY['pix.message.received'], now() \
         FROM (SELECT ({FIRST_ID} + n) >> 12 AS block FROM generate_series(0, {messages} - 1) AS n) AS events \
         GROUP BY block ORDER BY block; \
         SELECT setval('log_blocks', {last}), setval('log_commits_seq', {last} - 1), \
                setval(pg_get_serial_sequence('clients', 'id'), 2 * {messages}), \
                setval(pg_get_serial_sequence('pix_messages', 'id'), {messages}); \
         INSERT INTO follower_positions (follower, n, position) \
         SELECT follower, max(n) + 1, ({last}::bigint - 1) << 12 | 4095 FROM follower_positions GROUP BY follower"
    )
}

fn sessions(stream: i32, ispbs: usize) -> [String; 2] {
    [
        format!(
            "INSERT INTO stream_sessions (id, stream, key, slot) \
             SELECT nextval('stream_session_ids'), {stream}, ({FIRST_ISPB} + ispb)::text, slot \
             FROM generate_series(0, {ispbs} - 1) AS ispb, generate_series(1, {SESSIONS}) AS slot"
        ),
        "DELETE FROM stream_sessions".to_owned(),
    ]
}

async fn postgres(client: &Client, messages: usize, ispbs: usize, is_kept: bool) {
    let run = async |sql: &str| client.batch_execute(sql).await.expect(sql);
    let stream = "SELECT id FROM streams WHERE name = 'pix'";
    let stream: i32 = client.query_one(stream, &[]).await.unwrap().get(0);
    for sql in sessions(stream, ispbs) {
        run(&sql).await;
    }
    let size = messages.div_ceil(PARTS);
    for from in (0..messages).step_by(size) {
        let to = messages.min(from + size);
        run(&part(from, to, ispbs)).await;
        // Each a transaction of its own, as a row is not deleted by the one that has inserted it.
        for sql in kept().iter().chain(&collected(stream)) {
            run(sql).await;
        }
        run("DROP TABLE part").await;
        if to < messages && !is_kept {
            run("VACUUM (ANALYZE) stream_messages, stream_answers, stream_sessions").await;
        }
    }
    run(&headers(messages)).await;
    run("VACUUM (ANALYZE) clients, pix_messages, user_interactions, log_commits").await;
}

fn sqlite(messages: usize, ispbs: usize) -> String {
    format!(
        "BEGIN; \
         CREATE TEMP TABLE part AS \
         WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {messages}) \
         SELECT n, printf('%011d', n) AS digits, CAST({FIRST_ISPB} + n % {ispbs} AS TEXT) AS ispb, \
                n / {ispbs} + 1 AS number, randomblob(16) AS event_id, \
                CAST(unixepoch() AS BIGINT) * 1000000 AS at, \
                replace(replace('{TEMPLATE}', '{{n}}', printf('%011d', n)), \
                        '{{ispb}}', CAST({FIRST_ISPB} + n % {ispbs} AS TEXT)) AS body \
         FROM numbers; \
         INSERT INTO clients (id, name, document, ispb, branch, account, account_type) \
         SELECT 2 * n + 1, 'Marcos José', '98716278190', '32074986', '0001', digits, 'CACC' FROM part \
         UNION ALL SELECT 2 * n + 2, 'Flavio José', '77615678291', ispb, '0361', digits, 'SVGS' FROM part; \
         INSERT INTO pix_messages \
             (id, end_to_end_id, event_id, payer_id, receiver_id, amount_cents, free_text, tx_id, paid_at, recorded_at) \
         SELECT n + 1, 'E32074986202601310930' || digits, event_id, 2 * n + 1, 2 * n + 2, 9020, '', \
                'h7a786d8a7s6gd1hgs', at, at FROM part; \
         INSERT INTO user_interactions \
             (id, event_id, \"timestamp\", received_at, processed, source, producer, event_type, user_id, event_data) \
         SELECT n + 1, event_id, at, at, 1, 'http', 'default', 'pix.message.received', '77615678291', body FROM part; \
         INSERT INTO stream_answers (stream, key, n, handed, cursor) \
         SELECT (SELECT id FROM streams WHERE name = 'pix'), ispb, 0, '[]', max(number) FROM part GROUP BY ispb; \
         INSERT INTO follower_positions (follower, n, position, stored_at) \
         SELECT follower, max(n) + 1, {messages}, max(stored_at) FROM follower_positions GROUP BY follower; \
         DROP TABLE part; \
         COMMIT"
    )
}

/// Leaves so many messages behind that were collected. No server may run, and one must have run before. `is_kept` says
/// that a snapshot is held open.
pub async fn leave(place: &Place, messages: usize, ispbs: usize, is_kept: bool) {
    if messages == 0 {
        return;
    }
    if let Some(client) = place.connect().await {
        postgres(&client, messages, ispbs, is_kept).await;
    } else {
        let file = place.file();
        let mut connection = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        connection
            .batch_execute(&sqlite(messages, ispbs))
            .expect("rows");
    }
}
