//! The proxy and the model themselves: a check that finds nothing must be known to find something.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{
    Direction, Log, Model, Moment, Postgres, Proxy, connect, eventually, free_port,
};

const SOON: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);

/// A server that gives back what it gets, behind a proxy.
async fn echo() -> (Proxy, u16) {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let proxy = Proxy::to(port).await;
    let url = proxy.url(&format!("tcp://127.0.0.1:{port}/"));
    let through = url.trim_end_matches('/').rsplit(':').next().unwrap();
    let through = through.parse().unwrap();
    (proxy, through)
}

async fn client(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

async fn says(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn is_reset<T: std::fmt::Debug>(result: std::io::Result<T>) -> bool {
    matches!(
        result.unwrap_err().kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

#[tokio::test]
async fn a_proxy_passes_cuts_resets_and_refuses() {
    let (proxy, port) = echo().await;
    let mut stream = client(port).await;
    assert_eq!(says(&mut stream, b"hello").await.unwrap(), b"hello");

    assert_eq!(proxy.cut(), 1);
    let end = stream.read(&mut [0; 8]).await;
    assert_eq!(end.unwrap(), 0, "closed in order");

    let mut stream = client(port).await;
    says(&mut stream, b"hello").await.unwrap();
    assert_eq!(proxy.reset(), 1);
    assert!(is_reset(stream.read(&mut [0; 8]).await));

    proxy.refuse();
    let mut stream = client(port).await;
    assert!(is_reset(says(&mut stream, b"hello").await));
    proxy.heal();
    let mut stream = client(port).await;
    assert_eq!(says(&mut stream, b"hello").await.unwrap(), b"hello");
}

#[tokio::test]
async fn a_proxy_swallows_one_direction_and_does_not_go_on_behind_the_hole() {
    for way in [Direction::Up, Direction::Down] {
        let (proxy, port) = echo().await;
        let (mut holed, mut whole) = (client(port).await, client(port).await);
        for stream in [&mut holed, &mut whole] {
            says(stream, b"hello").await.unwrap();
        }
        proxy.drop_silently(way);
        let answer = tokio::time::timeout(SHORT, says(&mut holed, b"hello")).await;
        assert!(answer.is_err(), "swallowed");
        proxy.heal();
        assert!(is_reset(holed.read(&mut [0; 8]).await));
        assert_eq!(says(&mut whole, b"hello").await.unwrap(), b"hello");
    }
}

#[tokio::test]
async fn a_proxy_cuts_at_a_pattern_that_comes_in_pieces() {
    for moment in [Moment::Before, Moment::Answered] {
        let (proxy, port) = echo().await;
        let mut stream = client(port).await;
        proxy.cut_when(Direction::Up, b"COMMIT", moment);
        assert_eq!(
            says(&mut stream, b"no match, COM").await.unwrap(),
            b"no match, COM"
        );
        assert_eq!(proxy.sprung(), 0);
        assert!(is_reset(says(&mut stream, b"MIT").await));
        eventually(SOON, "it counts", async || {
            (proxy.sprung() == 1).then_some(())
        })
        .await;
        // Once only.
        let mut stream = client(port).await;
        assert_eq!(says(&mut stream, b"COMMIT").await.unwrap(), b"COMMIT");
    }
}

fn event(id: &str, n: Value) -> Value {
    json!({
        "id": id, "userId": "u", "eventType": "t", "timestamp": "2026-01-01T00:00:00Z",
        "eventData": {"n": n, "text": "ü"},
    })
}

#[tokio::test]
async fn the_model_finds_what_is_lost_doubled_altered_and_invented() {
    let postgres = Postgres::shared().await;
    let url = postgres.database().await;
    let client = connect(&url).await;
    client
        .batch_execute(
            "CREATE TABLE user_interactions (id bigserial, event_id uuid DEFAULT gen_random_uuid(),
                 original_id text, user_id text DEFAULT 'u', event_type text DEFAULT 't',
                 session_id text, \"timestamp\" timestamptz DEFAULT '2026-01-01T00:00:00Z',
                 source text DEFAULT 'http', event_data jsonb)",
        )
        .await
        .unwrap();
    let model = Model::default();
    for id in [
        "good",
        "lost",
        "not promised",
        "twice",
        "other number",
        "other user",
    ] {
        let event = event(id, json!(1.50));
        model.sending(&event, "http");
        if id != "not promised" {
            model.taken(&event);
        }
    }
    let insert = async |id: &str, data: &str, user: &str| {
        let sql = format!(
            "INSERT INTO user_interactions (original_id, event_data, user_id)
             VALUES ('{id}', '{data}', '{user}')"
        );
        client.batch_execute(&sql).await.unwrap();
    };
    let data = r#"{"text": "ü", "n": 1.5}"#;
    for id in ["good", "twice", "twice", "invented"] {
        insert(id, data, "u").await;
    }
    insert("other number", r#"{"text": "ü", "n": 2}"#, "u").await;
    insert("other user", data, "v").await;
    let found = model.check(Log::Postgres(&url)).await;
    assert_eq!((found.taken, found.rows), (5, 6));
    assert_eq!(found.lost, ["lost"]);
    assert_eq!(found.doubled, ["twice"]);
    assert_eq!(found.altered, ["other number", "other user"]);
    assert_eq!(found.unsent, ["invented"]);
    assert!(!found.is_clean());
}
