//! The contract's section on collectors.

use super::{Api, SOON, fresh_ispb, on, on_both_servers, start};
use crate::followers::{Place, on_both_stores};
use crate::harness::eventually;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use std::collections::HashSet;

on_both_servers! {
    at_most_six_streams_of_an_ispb_live_and_the_next_start_gets_429_with_retry_after,
    a_message_is_with_one_live_stream_only,
    an_acknowledged_message_is_never_handed_out_again,
    an_unknown_or_foreign_id_is_a_404_and_an_ended_one_a_410,
    a_wrong_ispb_or_number_is_a_400,
    every_error_is_problem_json,
}

async fn at_most_six_streams_of_an_ispb_live_and_the_next_start_gets_429_with_retry_after(
    api: &Api,
) {
    let ispb = fresh_ispb();
    api.make(&ispb, 8).await;
    let path = start(&ispb);
    let mut answers = join_all((0..8).map(|_| api.get(&path))).await;
    let refused: Vec<_> = answers
        .extract_if(.., |one| one.status != StatusCode::OK)
        .collect();
    assert_eq!((answers.len(), refused.len()), (6, 2));
    for answer in refused {
        answer.assert_problem(StatusCode::TOO_MANY_REQUESTS);
        assert!(
            answer
                .retry_after
                .is_some_and(|seconds| (1..=60).contains(&seconds)),
            "{answer:?}"
        );
    }
    assert_eq!(api.delete(&answers[0].next()).await.status, StatusCode::OK);
    assert_eq!(api.get(&start(&ispb)).await.status, StatusCode::OK);
}

async fn a_message_is_with_one_live_stream_only(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 40).await;
    let path = start(&ispb);
    let answers = join_all((0..6).map(|_| api.many(&path))).await;
    let with_messages = answers.iter().filter(|one| one.status == StatusCode::OK);
    let ids: Vec<String> = with_messages.flat_map(|one| one.ids()).collect();
    assert_eq!(
        (ids.len(), HashSet::<&String>::from_iter(&ids).len()),
        (40, 40)
    );
}

async fn an_acknowledged_message_is_never_handed_out_again(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 3).await;
    let first = api.get(&start(&ispb)).await;
    let second = api.get(&first.next()).await;
    api.send(Method::GET, &format!("/api/pix/{ispb}/stream/stop"), None)
        .await;
    let rest = api.many(&start(&ispb)).await.ids();
    assert_eq!(rest.len(), 2);
    assert_eq!(rest[0], second.ids()[0], "what returns is the oldest");
    assert!(!rest.contains(&first.ids()[0]));
}

async fn an_unknown_or_foreign_id_is_a_404_and_an_ended_one_a_410(api: &Api) {
    let (own, other) = (fresh_ispb(), fresh_ispb());
    api.make(&own, 1).await;
    let path = api.get(&start(&own)).await.next();
    let foreign = path.replace(&own, &other);
    let unknown = format!("/api/pix/{own}/stream/noneeverhadthis");
    for path in [&foreign, &unknown] {
        api.get(path).await.assert_problem(StatusCode::NOT_FOUND);
        api.delete(path).await.assert_problem(StatusCode::NOT_FOUND);
    }
    assert_eq!(api.delete(&path).await.status, StatusCode::OK);
    api.get(&path).await.assert_problem(StatusCode::GONE);
    api.delete(&path).await.assert_problem(StatusCode::GONE);
}

async fn a_wrong_ispb_or_number_is_a_400(api: &Api) {
    for ispb in ["1234567", "123456789", "1234567a", "12345%2068", "١٢٣٤٥٦٧٨"] {
        api.get(&start(ispb))
            .await
            .assert_problem(StatusCode::BAD_REQUEST);
        let path = format!("/api/util/msgs/{ispb}/1");
        api.send(Method::POST, &path, None)
            .await
            .assert_problem(StatusCode::BAD_REQUEST);
    }
    for number in [
        "0",
        "10001",
        "-1",
        "+5",
        "%2B5",
        "x",
        "1.5",
        "99999999999999999999",
    ] {
        let path = format!("/api/util/msgs/{}/{number}", fresh_ispb());
        api.send(Method::POST, &path, None)
            .await
            .assert_problem(StatusCode::BAD_REQUEST);
    }
}

async fn every_error_is_problem_json(api: &Api) {
    let ispb = fresh_ispb();
    for (method, path, status) in [
        (Method::GET, "/api/pix".to_owned(), StatusCode::NOT_FOUND),
        (
            Method::GET,
            format!("/api/pix/{ispb}"),
            StatusCode::NOT_FOUND,
        ),
        (Method::PUT, start(&ispb), StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, start(&ispb), StatusCode::METHOD_NOT_ALLOWED),
        (
            Method::GET,
            format!("/api/util/msgs/{ispb}/1"),
            StatusCode::METHOD_NOT_ALLOWED,
        ),
        (
            Method::GET,
            format!("/api/pix/{ispb}/stream/x"),
            StatusCode::NOT_FOUND,
        ),
    ] {
        api.send(method, &path, None).await.assert_problem(status);
    }
    // A probe must not open a stream.
    let head = api.send(Method::HEAD, &start(&ispb), None).await;
    assert_eq!(head.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(api.level(&ispb).await, (0, vec![]));
}

mod with_a_short_idle_time {
    use super::a_stream_without_calls_lapses_its_place_is_free_and_its_messages_come_again;
    use super::on_both_stores;

    on_both_stores! {
        a_stream_without_calls_lapses_its_place_is_free_and_its_messages_come_again,
    }
}

async fn a_stream_without_calls_lapses_its_place_is_free_and_its_messages_come_again(
    place: &Place,
) {
    let builder = on(place).set("pix.idle", "1s").set("pix.slots", 1);
    let app = builder.start().await;
    let api = Api::of(&app);
    let ispb = fresh_ispb();
    api.make(&ispb, 1).await;
    let lost = api.get(&start(&ispb)).await;
    api.get(&start(&ispb))
        .await
        .assert_problem(StatusCode::TOO_MANY_REQUESTS);
    // Its collector is not heard of any more.
    let again = eventually(SOON, "the place is free", async || {
        let answer = api.get(&start(&ispb)).await;
        (answer.status != StatusCode::TOO_MANY_REQUESTS).then_some(answer)
    })
    .await;
    assert_eq!(again.ids(), lost.ids());
    api.get(&lost.next()).await.assert_problem(StatusCode::GONE);
    api.delete(&lost.next())
        .await
        .assert_problem(StatusCode::GONE);
    // A poll in progress does not count: it takes longer than the idle time, and the stream lives.
    let waited = api.get(&again.next()).await;
    assert_eq!(waited.status, StatusCode::NO_CONTENT);
    api.make(&ispb, 1).await;
    assert_eq!(api.get(&waited.next()).await.ids().len(), 1);
}
