//! The contract's table of endpoints.

use super::{Api, fresh_ispb, on_both_servers, start};
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::HashSet;

on_both_servers! {
    start_opens_a_stream_and_reads_from_it,
    get_goes_on_reading_and_acknowledges_what_the_previous_answer_carried,
    delete_acknowledges_the_last_answer_and_ends_the_stream_which_frees_the_collectors_place,
    stop_ends_every_stream_of_that_ispb,
    post_creates_random_messages_whose_receiver_has_that_ispb,
    an_interation_id_is_opaque_url_safe_and_unguessable,
}

async fn start_opens_a_stream_and_reads_from_it(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 1).await;
    let answer = api.get(&start(&ispb)).await;
    assert_eq!(answer.ids().len(), 1);
    assert_eq!(api.level(&ispb).await, (0, vec![1]));
}

async fn get_goes_on_reading_and_acknowledges_what_the_previous_answer_carried(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 2).await;
    let first = api.get(&start(&ispb)).await;
    let second = api.get(&first.next()).await;
    assert_ne!(first.ids(), second.ids());
    // The first one is with no stream any more, and does not come back.
    assert_eq!(api.level(&ispb).await, (0, vec![1]));
    assert_eq!(
        api.delete(&format!("/api/pix/{ispb}/stream/stop"))
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(api.many(&start(&ispb)).await.ids(), second.ids());
}

async fn delete_acknowledges_the_last_answer_and_ends_the_stream_which_frees_the_collectors_place(
    api: &Api,
) {
    let ispb = fresh_ispb();
    api.make(&ispb, 1).await;
    let answer = api.get(&start(&ispb)).await;
    let ended = api.delete(&answer.next()).await;
    assert_eq!((ended.status, ended.json()), (StatusCode::OK, json!({})));
    assert_eq!(api.level(&ispb).await, (0, vec![]));
}

async fn stop_ends_every_stream_of_that_ispb(api: &Api) {
    for method in [Method::DELETE, Method::GET] {
        let ispb = fresh_ispb();
        api.make(&ispb, 2).await;
        let streams = [api.get(&start(&ispb)).await, api.get(&start(&ispb)).await];
        let stop = format!("/api/pix/{ispb}/stream/stop");
        let stopped = api.send(method, &stop, None).await;
        assert_eq!(
            (stopped.status, stopped.json()),
            (StatusCode::OK, json!({}))
        );
        for stream in streams {
            api.get(&stream.next())
                .await
                .assert_problem(StatusCode::GONE);
        }
        assert_eq!(api.level(&ispb).await, (2, vec![]));
    }
}

async fn post_creates_random_messages_whose_receiver_has_that_ispb(api: &Api) {
    let ispb = fresh_ispb();
    let made = api
        .send(Method::POST, &format!("/api/util/msgs/{ispb}/12"), None)
        .await;
    assert_eq!(made.status, StatusCode::CREATED);
    let first = api.many(&start(&ispb)).await;
    let second = api.many(&first.next()).await;
    let mut ids = HashSet::new();
    for message in [first.json(), second.json()]
        .iter()
        .flat_map(|page| page.as_array().unwrap())
    {
        assert_eq!(message["recebedor"]["ispb"], ispb);
        assert!(ids.insert(message["endToEndId"].clone()));
    }
    assert_eq!(ids.len(), 12);
}

async fn an_interation_id_is_opaque_url_safe_and_unguessable(api: &Api) {
    let ispb = fresh_ispb();
    api.make(&ispb, 3).await;
    let mut seen = HashSet::new();
    let mut path = start(&ispb);
    for _ in 0..3 {
        path = api.get(&path).await.next();
        let id = path.rsplit('/').next().unwrap().to_owned();
        let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(id.len() >= 32 && id.chars().all(is_safe), "{id}");
        assert!(seen.insert(id));
    }
    // The next one is not to be had by changing this one.
    for at in [0, 7, 12, 20, 30] {
        let mut guess: Vec<char> = path.chars().collect();
        let place = path.rfind('/').unwrap() + 1 + at;
        guess[place] = if guess[place] == 'A' { 'B' } else { 'A' };
        let guess: String = guess.into_iter().collect();
        api.get(&guess).await.assert_problem(StatusCode::NOT_FOUND);
    }
}
