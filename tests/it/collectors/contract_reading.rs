//! The contract's section on reading.

use super::{Api, SOON, fresh_ispb, on_both_servers, start};
use crate::harness::eventually;
use reqwest::{Method, StatusCode};
use std::time::{Duration, Instant};

on_both_servers! {
    accept_absent_or_json_gets_one_message_as_an_object,
    accept_multipart_json_gets_one_to_ten_messages_as_an_array,
    both_answer_with_content_type_json,
    only_messages_of_the_paths_ispb_come_oldest_first,
    an_answer_comes_as_soon_as_one_message_is_there_and_never_waits_to_fill_ten,
    no_message_within_eight_seconds_is_a_204_without_a_body,
    every_200_and_204_has_pull_next_with_the_path,
    no_200_and_204_may_be_stored_by_a_cache,
    a_204_is_followed_like_a_200,
    an_id_that_was_answered_gets_the_same_messages_until_its_successor_was_used,
    a_second_get_on_a_waiting_id_takes_the_poll_over,
    a_poll_that_is_taken_over_ends_at_once_with_a_410,
    a_poll_whose_stream_is_ended_ends_at_once_with_a_410,
    the_acknowledgement_is_committed_before_the_wait_and_the_lease_is_taken_when_messages_are_there,
    after_delete_the_id_is_dead_and_collecting_begins_at_start,
}

async fn accept_absent_or_json_gets_one_message_as_an_object(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 5).await;
    let mut path = start(&ispb);
    for accept in [
        None,
        Some("application/json"),
        Some("*/*"),
        Some("multipart/json;q=0"),
        Some("application/json, Multipart/JSON; charset=utf-8; Q=0.000"),
    ] {
        let answer = api.send(Method::GET, &path, accept).await;
        assert!(answer.json().is_object(), "{answer:?}");
        path = answer.next();
    }
}

async fn accept_multipart_json_gets_one_to_ten_messages_as_an_array(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 11).await;
    let first = api.many(&start(&ispb)).await;
    assert_eq!(first.json().as_array().unwrap().len(), 10);
    let accept = Some("application/xml, Multipart/JSON; q=0.9");
    let second = api.send(Method::GET, &first.next(), accept).await;
    assert_eq!(second.json().as_array().unwrap().len(), 1);
}

async fn both_answer_with_content_type_json(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 2).await;
    let one = api.get(&start(&ispb)).await;
    let many = api.many(&one.next()).await;
    assert_eq!(
        (one.kind.as_str(), many.kind.as_str()),
        ("application/json", "application/json")
    );
}

async fn only_messages_of_the_paths_ispb_come_oldest_first(api: &Api) {
    let (own, other) = (fresh_ispb(), fresh_ispb());
    let mut sent = Vec::new();
    for _ in 0..3 {
        for ispb in [&own, &other] {
            let message = super::example(ispb);
            assert_eq!(api.tell(&message).await.status, StatusCode::ACCEPTED);
            if *ispb == own {
                sent.push(message["endToEndId"].as_str().unwrap().to_owned());
            }
        }
    }
    eventually(SOON, "three wait", async || {
        (api.level(&own).await.0 == 3).then_some(())
    })
    .await;
    assert_eq!(api.many(&start(&own)).await.ids(), sent);
}

async fn an_answer_comes_as_soon_as_one_message_is_there_and_never_waits_to_fill_ten(api: &Api) {
    let ispb = fresh_ispb();
    let path = start(&ispb);
    let polling = async {
        let answer = api.many(&path).await;
        (answer, Instant::now())
    };
    let making = async {
        eventually(SOON, "a call waits", async || {
            (!api.level(&ispb).await.1.is_empty()).then_some(())
        })
        .await;
        api.make(&ispb, 1).await;
        Instant::now()
    };
    let ((answer, answered), made) = tokio::join!(polling, making);
    assert_eq!(answer.ids().len(), 1);
    assert!(
        answered < made + Duration::from_secs(4),
        "it waited for more"
    );
}

async fn no_message_within_eight_seconds_is_a_204_without_a_body(api: &Api) {
    // A machine that is busy may delay an answer, but not each one.
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        let answer = api.get(&start(&fresh_ispb())).await;
        let took = began.elapsed();
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (StatusCode::NO_CONTENT, "")
        );
        assert!(took >= Duration::from_millis(7_500), "{took:?}");
        fastest = fastest.min(took);
        if fastest <= Duration::from_millis(8_500) {
            return;
        }
    }
    panic!("the fastest of three answers took {fastest:?}");
}

async fn every_200_and_204_has_pull_next_with_the_path(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 1).await;
    let with = api.get(&start(&ispb)).await;
    let without = api.get(&with.next()).await;
    assert_eq!(
        (with.status, without.status),
        (StatusCode::OK, StatusCode::NO_CONTENT)
    );
    for answer in [with, without] {
        let next = answer.next();
        let id = next.strip_prefix(&format!("/api/pix/{ispb}/stream/"));
        assert!(
            id.is_some_and(|id| !id.is_empty() && !id.contains('/')),
            "{next}"
        );
    }
}

async fn no_200_and_204_may_be_stored_by_a_cache(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 1).await;
    let with = api.get(&start(&ispb)).await;
    let without = api.get(&with.next()).await;
    let ended = api.delete(&without.next()).await;
    let stop = format!("/api/pix/{ispb}/stream/stop");
    for (answer, status) in [
        (with, StatusCode::OK),
        (without, StatusCode::NO_CONTENT),
        (ended, StatusCode::OK),
        (api.get(&stop).await, StatusCode::OK),
    ] {
        assert_eq!(
            (answer.status, answer.cache_control.as_deref()),
            (status, Some("no-store"))
        );
    }
}

async fn a_204_is_followed_like_a_200(api: &Api) {
    let ispb = fresh_ispb();
    let nothing = api.get(&start(&ispb)).await;
    assert_eq!(nothing.status, StatusCode::NO_CONTENT);
    api.make(&ispb, 1).await;
    let answer = api.get(&nothing.next()).await;
    assert_eq!(answer.ids().len(), 1);
    assert_eq!(api.delete(&answer.next()).await.status, StatusCode::OK);
}

async fn an_id_that_was_answered_gets_the_same_messages_until_its_successor_was_used(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 3).await;
    let first = api.get(&start(&ispb)).await;
    let second = api.get(&first.next()).await;
    for _ in 0..3 {
        let again = api.get(&first.next()).await;
        assert_eq!((again.ids(), again.next()), (second.ids(), second.next()));
    }
    // Also to a client that would take more this time.
    assert_eq!(api.many(&first.next()).await.ids(), second.ids());
    let third = api.get(&second.next()).await;
    assert_ne!(third.ids(), second.ids());
    api.get(&first.next())
        .await
        .assert_problem(StatusCode::GONE);
}

async fn a_second_get_on_a_waiting_id_takes_the_poll_over(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 1).await;
    let path = api.get(&start(&ispb)).await.next();
    let expiry = async || {
        let place = api.get(&format!("/v1/streams/pix/{ispb}")).await.json();
        place["sessions"][0]["expiresAt"].clone()
    };
    let later = async {
        // The earlier call waits when it has acknowledged the message.
        let waits = async || (api.level(&ispb).await.1 == [0]).then_some(());
        eventually(SOON, "it waits", waits).await;
        let before = expiry().await;
        let making = async {
            let waits = async || (expiry().await != before).then_some(());
            eventually(SOON, "the later one waits", waits).await;
            api.make(&ispb, 1).await;
        };
        tokio::join!(api.get(&path), making).0
    };
    let (earlier, later) = tokio::join!(api.get(&path), later);
    assert_eq!(later.ids().len(), 1);
    earlier.assert_problem(StatusCode::GONE);
}

/// Well below what a poll takes without a message.
const AT_ONCE: Duration = Duration::from_secs(4);

/// When a call waits that has acknowledged what there was.
async fn waits(api: &Api, ispb: &str) -> Instant {
    let waits = async || (api.level(ispb).await.1 == [0]).then_some(());
    eventually(SOON, "it waits", waits).await;
    Instant::now()
}

async fn a_poll_that_is_taken_over_ends_at_once_with_a_410(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 1).await;
    let path = api.get(&start(&ispb)).await.next();
    let earlier = async {
        let answer = api.get(&path).await;
        let ended = Instant::now();
        // The later one goes on.
        api.make(&ispb, 1).await;
        (answer, ended)
    };
    let later = async {
        let began = waits(api, &ispb).await;
        (api.get(&path).await, began)
    };
    let ((earlier, ended), (later, began)) = tokio::join!(earlier, later);
    earlier.assert_problem(StatusCode::GONE);
    assert!(ended < began + AT_ONCE, "{:?}", ended - began);
    assert_eq!(later.ids().len(), 1);
}

async fn a_poll_whose_stream_is_ended_ends_at_once_with_a_410(api: &Api) {
    for by in ["delete", "stop", "release"] {
        let ispb = fresh_ispb();
        api.make(&ispb, 1).await;
        let path = api.get(&start(&ispb)).await.next();
        let ending = async {
            let began = waits(api, &ispb).await;
            let status = match by {
                "delete" => api.delete(&path).await.status,
                "stop" => {
                    api.get(&format!("/api/pix/{ispb}/stream/stop"))
                        .await
                        .status
                }
                _ => {
                    let path = format!("/v1/streams/pix/{ispb}/release");
                    api.post(&path, &serde_json::json!({})).await.status
                }
            };
            assert_eq!(status, StatusCode::OK, "{by}");
            began
        };
        let polling = async { (api.get(&path).await, Instant::now()) };
        let ((answer, ended), began) = tokio::join!(polling, ending);
        answer.assert_problem(StatusCode::GONE);
        assert!(ended < began + AT_ONCE, "{by}: {:?}", ended - began);
    }
}

async fn the_acknowledgement_is_committed_before_the_wait_and_the_lease_is_taken_when_messages_are_there(
    api: &Api,
) {
    let ispb = fresh_ispb();
    api.make(&ispb, 1).await;
    let first = api.get(&start(&ispb)).await;
    assert_eq!(api.level(&ispb).await, (0, vec![1]));
    let path = first.next();
    let watching = async {
        eventually(SOON, "acknowledged while it waits", async || {
            (api.level(&ispb).await == (0, vec![0])).then_some(())
        })
        .await;
        api.make(&ispb, 1).await;
    };
    let (second, ()) = tokio::join!(api.get(&path), watching);
    assert_eq!(second.ids().len(), 1);
    assert_eq!(api.level(&ispb).await, (0, vec![1]));
}

async fn after_delete_the_id_is_dead_and_collecting_begins_at_start(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 2).await;
    let path = api.get(&start(&ispb)).await.next();
    assert_eq!(api.delete(&path).await.status, StatusCode::OK);
    api.get(&path).await.assert_problem(StatusCode::GONE);
    api.delete(&path).await.assert_problem(StatusCode::GONE);
    assert_eq!(api.get(&start(&ispb)).await.ids().len(), 1);
}
