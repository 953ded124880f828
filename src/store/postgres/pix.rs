//! Pix messages as rows: their parties, and one row per `endToEndId`.

use super::prepared::Prepare;
use crate::event::id::of_follower_letter;
use crate::event::pix::{Party, PixMessage};
use crate::store::streams::{NewMessage, follower_name};
use diesel::sql_types::{Array, BigInt, Integer, Text, Timestamptz, Uuid as UuidType};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use std::collections::HashSet;
use uuid::Uuid;

const CLIENTS: &str = "\
    INSERT INTO clients (ispb, branch, account, account_type, document, name) \
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) \
        AS t (ispb, branch, account, account_type, document, name) \
    WHERE NOT EXISTS (SELECT FROM clients AS c \
        WHERE c.ispb = t.ispb AND c.branch = t.branch AND c.account = t.account \
          AND c.account_type = t.account_type AND c.document = t.document AND c.name = t.name) \
    ON CONFLICT DO NOTHING";

/// Each party by its place in `$7` to `$12`: those of the payers come first.
const MESSAGES: &str = "\
    WITH t AS MATERIALIZED ( \
        SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[]) \
            WITH ORDINALITY AS t (end_to_end_id, event_id, cents, free_text, tx_id, paid_at, place) \
    ), parties AS MATERIALIZED ( \
        SELECT t.place, c.id FROM unnest($7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[]) \
            WITH ORDINALITY AS t (ispb, branch, account, account_type, document, name, place) \
        JOIN clients AS c USING (ispb, branch, account, account_type, document, name) \
    ) \
    INSERT INTO pix_messages (end_to_end_id, event_id, payer_id, receiver_id, amount, free_text, tx_id, paid_at) \
    SELECT t.end_to_end_id, t.event_id, payer.id, receiver.id, t.cents * 0.01, t.free_text, t.tx_id, t.paid_at \
    FROM t JOIN parties AS payer ON payer.place = t.place \
           JOIN parties AS receiver ON receiver.place = t.place + (SELECT count(*) FROM t) \
    ORDER BY t.place \
    ON CONFLICT (end_to_end_id) DO NOTHING RETURNING event_id";

const NAME: &str = "SELECT name AS word FROM streams WHERE id = $1";

/// Those that are there already because of the same event, whose dead letter is replayed. Without a replay it is an
/// event that comes anew after the retention has removed the first one.
const REPLAYED: &str = "\
    SELECT m.event_id FROM unnest($1::text[], $2::uuid[], $3::uuid[]) AS t (end_to_end_id, event_id, letter) \
    JOIN pix_messages AS m USING (end_to_end_id, event_id) \
    WHERE EXISTS (SELECT FROM follower_replays AS r WHERE r.letter = t.letter)";

#[derive(diesel::QueryableByName)]
struct IdRow {
    #[diesel(sql_type = UuidType)]
    event_id: Uuid,
}

#[derive(diesel::QueryableByName)]
struct WordRow {
    #[diesel(sql_type = Text)]
    word: String,
}

/// Records Pix messages, and returns the events whose message is to be delivered.
pub(super) async fn record(
    connection: &mut AsyncPgConnection,
    stream: i32,
    messages: &[NewMessage],
) -> QueryResult<HashSet<Uuid>> {
    let messages: Vec<(Uuid, &PixMessage)> = messages
        .iter()
        .filter_map(|message| Some((message.event_id, message.pix.as_ref()?)))
        .collect();
    if messages.is_empty() {
        return Ok(HashSet::new());
    }
    let payers = messages.iter().map(|(_, message)| &message.payer);
    let receivers = messages.iter().map(|(_, message)| &message.receiver);
    let parties: Vec<&Party> = payers.chain(receivers).collect();
    let mut seen = HashSet::new();
    let distinct: Vec<&Party> = parties
        .iter()
        .copied()
        .filter(|one| seen.insert(*one))
        .collect();
    let columns = Columns::of(&distinct);
    sql_query(CLIENTS)
        .bind::<Array<Text>, _>(columns.ispb)
        .bind::<Array<Text>, _>(columns.branch)
        .bind::<Array<Text>, _>(columns.account)
        .bind::<Array<Text>, _>(columns.account_type)
        .bind::<Array<Text>, _>(columns.document)
        .bind::<Array<Text>, _>(columns.name)
        .prepared()
        .execute(connection)
        .await?;
    let end_to_end_ids: Vec<&str> = messages
        .iter()
        .map(|(_, message)| message.end_to_end_id.as_str())
        .collect();
    let ids: Vec<Uuid> = messages.iter().map(|(id, _)| *id).collect();
    let columns = Columns::of(&parties);
    let new: Vec<IdRow> = sql_query(MESSAGES)
        .bind::<Array<Text>, _>(&end_to_end_ids)
        .bind::<Array<UuidType>, _>(&ids)
        .bind::<Array<BigInt>, _>(Vec::from_iter(messages.iter().map(|(_, m)| m.amount.0)))
        .bind::<Array<Text>, _>(Vec::from_iter(
            messages.iter().map(|(_, m)| m.free_text.as_str()),
        ))
        .bind::<Array<Text>, _>(Vec::from_iter(
            messages.iter().map(|(_, m)| m.tx_id.as_str()),
        ))
        .bind::<Array<Timestamptz>, _>(Vec::from_iter(messages.iter().map(|(_, m)| m.paid_at)))
        .bind::<Array<Text>, _>(columns.ispb)
        .bind::<Array<Text>, _>(columns.branch)
        .bind::<Array<Text>, _>(columns.account)
        .bind::<Array<Text>, _>(columns.account_type)
        .bind::<Array<Text>, _>(columns.document)
        .bind::<Array<Text>, _>(columns.name)
        .prepared()
        .load(connection)
        .await?;
    let mut new: HashSet<Uuid> = new.into_iter().map(|row| row.event_id).collect();
    let known: Vec<(Uuid, &PixMessage)> = messages
        .into_iter()
        .filter(|(id, _)| !new.contains(id))
        .collect();
    if !known.is_empty() {
        new.extend(replayed(connection, stream, &known).await?);
    }
    Ok(new)
}

async fn replayed(
    connection: &mut AsyncPgConnection,
    stream: i32,
    known: &[(Uuid, &PixMessage)],
) -> QueryResult<Vec<Uuid>> {
    let name: WordRow = sql_query(NAME)
        .bind::<Integer, _>(stream)
        .prepared()
        .get_result(connection)
        .await?;
    let follower = follower_name(&name.word);
    let end_to_end_ids = known.iter().map(|(_, one)| one.end_to_end_id.as_str());
    let ids: Vec<Uuid> = known.iter().map(|(id, _)| *id).collect();
    let letters = ids.iter().map(|id| of_follower_letter(&follower, *id));
    let rows: Vec<IdRow> = sql_query(REPLAYED)
        .bind::<Array<Text>, _>(Vec::from_iter(end_to_end_ids))
        .bind::<Array<UuidType>, _>(&ids)
        .bind::<Array<UuidType>, _>(Vec::from_iter(letters))
        .prepared()
        .load(connection)
        .await?;
    Ok(rows.into_iter().map(|row| row.event_id).collect())
}

struct Columns<'a> {
    ispb: Vec<&'a str>,
    branch: Vec<&'a str>,
    account: Vec<&'a str>,
    account_type: Vec<&'a str>,
    document: Vec<&'a str>,
    name: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn of(parties: &[&'a Party]) -> Self {
        let column = |field: fn(&Party) -> &str| parties.iter().map(|one| field(one)).collect();
        Self {
            ispb: column(|one| &one.ispb),
            branch: column(|one| &one.branch),
            account: column(|one| &one.account),
            account_type: column(|one| &one.account_type),
            document: column(|one| &one.document),
            name: column(|one| &one.name),
        }
    }
}
