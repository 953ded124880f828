//! Pix messages as rows, and as messages of their stream.

use super::collecting::{Collecting, RULES, before, delivered, done, ids, pix_message, waiting};
use super::reacting::written;
use crate::followers::{Place, on_both_stores};
use crate::store_contract::event;
use eclusa::event::id::of_follower_letter;
use eclusa::event::pix::{PixMessage, PixRules};
use eclusa::store::dead_letters::Replayed;
use eclusa::store::followers::Also;
use eclusa::store::streams::{Call, Delivered, NewMessage, StreamRules};
use serde_json::json;
use uuid::Uuid;

const RECEIVER: &str = "00000000";

on_both_stores! {
    the_same_end_to_end_id_is_one_message,
    only_a_replay_delivers_the_same_event_again,
    parties_are_shared_rows,
    amounts_are_exact,
}

/// The message of the contract, with another end and amount.
fn pix(end: &str, amount: &str) -> PixMessage {
    let data = json!({
        "endToEndId": format!("E320749862024022119277T3lEBb{end:0>4}"),
        "valor": 0,
        "pagador": {"nome": "Marcos José", "cpfCnpj": "98716278190", "ispb": "32074986",
                    "agencia": "0001", "contaTransacional": "1231231", "tipoConta": "CACC"},
        "recebedor": {"nome": "Flavio José", "cpfCnpj": "77615678291", "ispb": RECEIVER,
                      "agencia": "0361", "contaTransacional": "1210098", "tipoConta": "SVGS"},
        "campoLivre": "",
        "txId": "h7a786d8a7s6gd1hgs",
        "dataHoraPagamento": "2022-07-23T19:47:18.108Z"
    });
    let data = data
        .to_string()
        .replace("\"valor\":0", &format!("\"valor\":{amount}"));
    let rules = PixRules {
        check_digits: false,
    };
    PixMessage::parse(&data, rules).unwrap()
}

async fn deliver(stream: &Collecting<'_>, messages: Vec<PixMessage>) -> Vec<Uuid> {
    let new = messages.into_iter().map(|pix| (Uuid::now_v7(), pix));
    let new: Vec<(Uuid, PixMessage)> = new.collect();
    let ids = new.iter().map(|(id, _)| *id).collect();
    let messages = new.into_iter().map(|(id, pix)| pix_message(id, pix));
    stream.step(messages.collect(), Also::Nothing).await;
    ids
}

async fn collected(stream: &Collecting<'_>) -> Vec<Delivered> {
    let (ticket, messages) = delivered(stream.call(RECEIVER, Call::Start { limit: 100 }).await);
    stream.call(RECEIVER, Call::End { ticket }).await;
    messages
}

async fn the_same_end_to_end_id_is_one_message(place: &Place) {
    let stream = Collecting::new(place, "pix", RULES).await;
    let messages = vec![pix("1", "1.00"), pix("2", "2.00"), pix("1", "3.00")];
    let first = deliver(&stream, messages).await;
    deliver(&stream, vec![pix("2", "4.00")]).await;
    let third = deliver(&stream, vec![pix("2", "4.00"), pix("3", "5.00")]).await;
    let expected = [first[0], first[1], third[1]];
    assert_eq!(ids(&collected(&stream).await), expected);
    let known = ["1", "2", "3", "4"].map(|end| pix(end, "1").end_to_end_id);
    assert_eq!(place.store.pix_messages(&known).await.unwrap(), 3);
    // Of the same event, which comes anew after the retention has removed it.
    let again = vec![
        pix_message(first[1], pix("2", "2.00")),
        pix_message(third[0], pix("2", "4.00")),
    ];
    stream.step(again, Also::Nothing).await;
    waiting(stream.call(RECEIVER, Call::Start { limit: 100 }).await);
    assert_eq!(place.store.pix_messages(&known).await.unwrap(), 3);
}

async fn only_a_replay_delivers_the_same_event_again(place: &Place) {
    let rules = StreamRules {
        max_deliveries: Some(1),
        ..RULES
    };
    let stream = Collecting::new(place, "pix", rules).await;
    let logged = written(place, vec![event()]).await.remove(0);
    let id = logged.event.event_id;
    let message = || {
        vec![NewMessage {
            position: logged.position,
            ..pix_message(id, pix("1", "1.00"))
        }]
    };
    stream.step(message(), Also::Nothing).await;
    let (ticket, got) = delivered(stream.call(RECEIVER, Call::Start { limit: 9 }).await);
    assert_eq!(ids(&got), [id]);
    let end = Call::End {
        ticket: before(ticket),
    };
    assert_eq!(stream.call(RECEIVER, end).await, done(0, 0));
    let letters = place.words("SELECT state AS word FROM dead_letters").await;
    assert_eq!(letters, ["dead"]);
    stream.step(message(), Also::Nothing).await;
    assert_eq!(stream.level(RECEIVER).await, (0, vec![]));

    let letter = of_follower_letter(&stream.follower, id);
    let letter = place.store.get_letter(letter).await.unwrap().unwrap();
    let replay = Replayed {
        id: letter.id,
        failed_at: letter.failure.at,
    };
    let requested = place.store.request_replays(&[replay]).await;
    assert_eq!(requested.unwrap(), [letter.id]);
    stream.step(message(), Also::Replayed(letter.id)).await;
    assert_eq!(ids(&collected(&stream).await), [id]);
    // Also after its replay.
    stream.step(message(), Also::Nothing).await;
    assert_eq!(stream.level(RECEIVER).await, (0, vec![]));
}

async fn parties_are_shared_rows(place: &Place) {
    let stream = Collecting::new(place, "pix", RULES).await;
    let mut other = pix("3", "1.00");
    other.receiver = other.payer.clone();
    other.receiver.ispb = RECEIVER.to_owned();
    let mut between = pix("4", "1.00");
    between.payer = between.receiver.clone();
    deliver(&stream, vec![pix("1", "1.00"), pix("2", "1.00"), other]).await;
    deliver(&stream, vec![between]).await;
    let clients = "SELECT name || ' ' || document || ' ' || ispb || ' ' || branch || ' ' || account || ' ' || account_type \
                   AS word FROM clients ORDER BY id";
    let expected = [
        "Marcos José 98716278190 32074986 0001 1231231 CACC",
        "Flavio José 77615678291 00000000 0361 1210098 SVGS",
        "Marcos José 98716278190 00000000 0001 1231231 CACC",
    ];
    let mut found = place.words(clients).await;
    found.sort();
    let mut sorted = expected.to_vec();
    sorted.sort_unstable();
    assert_eq!(found, sorted);
    let parties = "SELECT p.ispb || '>' || r.ispb || ' ' || p.name || '>' || r.name AS word FROM pix_messages AS m \
                   JOIN clients AS p ON p.id = payer_id JOIN clients AS r ON r.id = receiver_id ORDER BY end_to_end_id";
    let expected = [
        "32074986>00000000 Marcos José>Flavio José",
        "32074986>00000000 Marcos José>Flavio José",
        "32074986>00000000 Marcos José>Marcos José",
        "00000000>00000000 Flavio José>Flavio José",
    ];
    assert_eq!(place.words(parties).await, expected);
}

async fn amounts_are_exact(place: &Place) {
    let stream = Collecting::new(place, "pix", RULES).await;
    let amounts = [
        "0.01",
        "90.2",
        "9999999999999999.99",
        "0.07",
        "70368744177664.03",
    ];
    let ends = ["1", "2", "3", "4", "5"];
    let messages = ends
        .iter()
        .zip(amounts)
        .map(|(end, amount)| pix(end, amount));
    deliver(&stream, messages.collect()).await;
    let sql = match place.url {
        Some(_) => "SELECT amount::text AS word FROM pix_messages ORDER BY end_to_end_id",
        None => {
            "SELECT CAST(amount_cents AS TEXT) AS word FROM pix_messages ORDER BY end_to_end_id"
        }
    };
    let expected = [
        "0.01",
        "90.20",
        "9999999999999999.99",
        "0.07",
        "70368744177664.03",
    ];
    let kept = place.words(sql).await;
    let cents = expected.map(|amount| amount.replace('.', "").trim_start_matches('0').to_owned());
    match place.url {
        Some(_) => assert_eq!(kept, expected),
        None => assert_eq!(kept, cents),
    }
    let bodies = collected(&stream).await;
    for (message, amount) in bodies.iter().zip(expected) {
        let valor = format!("\"valor\":{amount},");
        assert!(message.body.contains(&valor), "{}", message.body);
    }
    assert_eq!(bodies.len(), 5);
}
