//! `eclusa streams`: in the store itself on PostgreSQL, and through the server that has the SQLite file.

use super::{Api, fresh_ispb, on, start};
use crate::followers::{Place, on_both_stores};
use crate::harness::{eclusa, told};

on_both_stores! {
    release_ends_what_there_is_and_says_what_there_is_not,
}

/// Whether `eclusa streams release pix` succeeds with these arguments, and what it says.
async fn release(place: &Place, arguments: &[&str]) -> (bool, String) {
    let setting = match (&place.url, &place.folder) {
        (Some(url), _) => format!("store.url={url}"),
        (None, folder) => format!("data_dir={}", folder.as_ref().unwrap().path().display()),
    };
    let command = ["streams", "release", "pix"];
    let mut command = eclusa(&[&command[..], arguments, &["--set", &setting]].concat());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    (output.status.success(), told(&output))
}

async fn release_ends_what_there_is_and_says_what_there_is_not(place: &Place) {
    let app = on(place).start().await;
    let api = Api::of(&app);
    let ispb = fresh_ispb();
    api.make(&ispb, 2).await;
    let held = api.get(&start(&ispb)).await;
    assert_eq!(held.ids().len(), 1);
    let shown = api.get(&format!("/v1/streams/pix/{ispb}")).await.json();
    let session = shown["sessions"][0]["id"].as_i64().unwrap();
    let (own, other) = (session.to_string(), (session + 1_000).to_string());
    let unknown = fresh_ispb();
    for (arguments, words) in [
        (vec![unknown.as_str()], "nothing under"),
        (vec![unknown.as_str(), "--session", &own], "no session"),
        (vec![ispb.as_str(), "--session", &other], "no session"),
    ] {
        let (succeeds, said) = release(place, &arguments).await;
        assert!(!succeeds && said.contains(words), "{arguments:?}: {said}");
        assert!(!said.contains("ended"), "{arguments:?}: {said}");
    }
    assert_eq!(api.level(&ispb).await, (1, vec![1]), "nothing was ended");
    let (succeeds, said) = release(place, &[&ispb, "--session", &own]).await;
    assert!(succeeds && said.contains("is ended"), "{said}");
    assert_eq!(api.level(&ispb).await, (2, vec![]));
    let (succeeds, said) = release(place, &[&ispb]).await;
    assert!(succeeds && said.contains("has no sessions"), "{said}");
    assert_eq!(api.get(&start(&ispb)).await.ids(), held.ids());
    let (succeeds, said) = release(place, &[&ispb]).await;
    assert!(succeeds && said.contains("are ended"), "{said}");
    assert_eq!(api.level(&ispb).await, (2, vec![]));
}
