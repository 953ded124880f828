//! Ways to the server: passwords, TLS, sockets, and servers that do not let in.

use super::{Bench, SOON, database};
use crate::harness::{Postgres, precondition, program, temp_dir};
use eclusa::capture::catalog::{server, slot};
use eclusa::capture::{CaptureDatabase, CaptureError, CaptureFault, ReplicationMessage};
use eclusa::store::ErrorKind;
use std::time::Duration;
use tokio::net::{TcpStream, UnixListener};
use tokio::time::timeout;

const T: &str = "CREATE TABLE t (id int PRIMARY KEY)";

/// Lets in by these lines of `pg_hba.conf` alone.
async fn admit(bench: &Bench, lines: &str) {
    let file = bench.client.query_one("SHOW hba_file", &[]).await.unwrap();
    let file: String = file.get(0);
    let values: Vec<String> = lines.lines().map(|line| format!("('{line}')")).collect();
    let sql = format!("COPY (VALUES {}) TO '{file}'", values.join(", "));
    bench.execute(&sql).await;
    bench.execute("SELECT pg_reload_conf()").await;
}

/// Reads the first change by this URL.
async fn reads(bench: &Bench, database: &CaptureDatabase) -> Result<(), CaptureError> {
    let mut stream = database.open(&bench.slot, "captured", None).await?;
    loop {
        let next = timeout(SOON, stream.next())
            .await
            .expect("a message in time");
        if let ReplicationMessage::Change(_) = next? {
            stream.close().await;
            return Ok(());
        }
    }
}

/// The same until the server has read its settings anew.
async fn comes_to_read(bench: &Bench, database: &CaptureDatabase) {
    crate::harness::eventually(SOON, "the stream reads", async || {
        reads(bench, database).await.ok()
    })
    .await;
}

#[tokio::test]
async fn passwords_are_given_as_the_server_asks() {
    let postgres = Postgres::start().await;
    let bench = Bench::start_on(&postgres, T, &["public.t"]).await;
    bench
        .execute(
            "INSERT INTO public.t VALUES (1); \
             SET password_encryption = 'md5'; CREATE ROLE by_md5 LOGIN REPLICATION PASSWORD 'p@ss'; \
             SET password_encryption = 'scram-sha-256'; CREATE ROLE by_scram LOGIN REPLICATION PASSWORD 'p@ss'; \
             CREATE ROLE in_clear LOGIN REPLICATION PASSWORD 'p@ss'; \
             CREATE ROLE too_low LOGIN PASSWORD 'p@ss'",
        )
        .await;
    admit(
        &bench,
        "host all postgres 127.0.0.1/32 trust\nhost all by_md5 127.0.0.1/32 md5\n\
         host all by_scram 127.0.0.1/32 scram-sha-256\nhost all too_low 127.0.0.1/32 scram-sha-256\n\
         host all in_clear 127.0.0.1/32 password",
    )
    .await;
    let by = |user: &str, password: &str| {
        database(
            &bench
                .url
                .replace("postgres@", &format!("{user}{password}@")),
        )
    };
    for user in ["by_md5", "by_scram", "in_clear"] {
        comes_to_read(&bench, &by(user, ":p%40ss")).await;
        for (password, words) in [(":wrong", "password"), ("", "URL has none")] {
            let error = reads(&bench, &by(user, password)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Operator, "{error}");
            assert_eq!(error.fault(), CaptureFault::NoRight, "{error}");
            let shown = error.to_string();
            assert!(
                shown.contains(words) && !shown.contains("wrong"),
                "{user}: {shown}"
            );
        }
    }
    let error = reads(&bench, &by("too_low", ":p%40ss")).await.unwrap_err();
    assert_eq!(error.fault(), CaptureFault::NoRight, "{error}");
    let client = by("too_low", ":p%40ss").connect().await.unwrap();
    let error = server::check(&client).await.unwrap_err();
    assert!(
        error.to_string().contains("ALTER ROLE too_low REPLICATION"),
        "{error}"
    );
    let error = reads(&bench, &by("stranger", "")).await.unwrap_err();
    assert_eq!(error.fault(), CaptureFault::NoRight, "{error}");
}

#[tokio::test]
async fn tls_is_as_the_url_says() {
    if precondition("openssl", program("openssl", &["version"])).is_none() {
        return;
    }
    let postgres = Postgres::start().await;
    let bench = Bench::start_on(&postgres, T, &["public.t"]).await;
    bench.execute("INSERT INTO public.t VALUES (1)").await;
    let with = |mode: &str| database(&format!("{}?sslmode={mode}", bench.url));
    // A server without TLS.
    reads(&bench, &with("disable")).await.unwrap();
    reads(&bench, &with("prefer")).await.unwrap();
    let error = reads(&bench, &with("require")).await.unwrap_err();
    assert!(error.to_string().contains("does not offer TLS"), "{error}");

    let folder = bench
        .client
        .query_one("SHOW data_directory", &[])
        .await
        .unwrap();
    let folder: String = folder.get(0);
    let make = format!(
        "cd {folder} && umask 077 && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
         -out server.crt -keyout server.key 2>/dev/null"
    );
    bench
        .execute(&format!("COPY (SELECT 1) TO PROGRAM '{make}'"))
        .await;
    bench.execute("ALTER SYSTEM SET ssl = on").await;
    bench.execute("SELECT pg_reload_conf()").await;
    admit(&bench, "hostssl all all 127.0.0.1/32 trust").await;
    comes_to_read(&bench, &with("prefer")).await;
    // The certificate is signed by itself.
    let error = reads(&bench, &with("verify-full")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Operator, "{error}");
    let error = reads(&bench, &with("disable")).await.unwrap_err();
    assert_eq!(error.fault(), CaptureFault::NoRight, "{error}");
}

#[tokio::test]
async fn a_socket_in_the_file_system_is_a_way_too() {
    let bench = Bench::start(T, &["public.t"]).await;
    bench.execute("INSERT INTO public.t VALUES (1)").await;
    let folder = temp_dir("socket-");
    let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    let port = Postgres::shared().await.port();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let host = folder.path().to_str().unwrap().replace('/', "%2F");
    let name = bench.database.name().unwrap();
    let database = database(&format!(
        "postgres://postgres@{host}/{name}?sslmode=require"
    ));
    reads(&bench, &database).await.unwrap();
}

#[tokio::test]
async fn an_unusable_url_is_refused_without_its_password() {
    for (url, words) in [
        ("postgres://:hunter2@localhost/d", "names no user"),
        ("postgres://me:hunter2@localhost:port/d", "cannot be read"),
        (
            "postgres://me:hunter2@localhost/d?channel_binding=require",
            "channel_binding",
        ),
    ] {
        let error = CaptureDatabase::new(url, Duration::from_secs(1)).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains(words) && !shown.contains("hunter2"),
            "{shown}"
        );
    }
    let database = database("postgres://me:hunter2@localhost:1/d");
    assert!(!format!("{database:?}").contains("hunter2"));
    let error = database
        .connect_replication()
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Outage, "{error}");
}

#[tokio::test]
async fn a_server_without_logical_replication_says_what_to_set() {
    let mut postgres = Postgres::start().await;
    let database = database(&postgres.url("postgres"));
    let client = database.connect().await.unwrap();
    server::check(&client).await.unwrap();
    postgres.stop().await;
    postgres.start_again_with(&["wal_level=replica"]).await;
    let client = database.connect().await.unwrap();
    let made = slot::create(&client, "captured").await.unwrap_err();
    assert_eq!(made.fault(), CaptureFault::WalLevel, "{made}");
    let error = server::check(&client).await.unwrap_err();
    assert_eq!(error.fault(), CaptureFault::WalLevel, "{error}");
    assert!(error.to_string().contains("wal_level = logical"), "{error}");
}

#[tokio::test]
async fn the_server_says_which_one_it_is() {
    let bench = Bench::start(T, &["public.t"]).await;
    let mut connection = bench.database.connect_replication().await.unwrap();
    let first = server::ServerIdentity::ask(&mut connection).await.unwrap();
    let row = bench
        .client
        .query_one("SELECT system_identifier FROM pg_control_system()", &[])
        .await
        .unwrap();
    assert_eq!(first.system, row.get::<_, i64>(0) as u64);
    assert_eq!(first.timelines.current(), 1);
    bench.execute("INSERT INTO public.t VALUES (1)").await;
    let later = server::ServerIdentity::ask(&mut connection).await.unwrap();
    assert!(later.wal_end > first.wal_end);
    // A refusal leaves the connection in order.
    let error = connection.query("SELECT 1 / 0").await.unwrap_err();
    assert!(error.to_string().contains("division by zero"), "{error}");
    assert_eq!(
        connection.query("SELECT 1").await.unwrap(),
        [[Some("1".to_owned())]]
    );
}

#[tokio::test]
async fn a_promoted_server_tells_its_timelines_apart() {
    let mut postgres = Postgres::start().await;
    let database = database(&postgres.url("postgres"));
    let ask = async || {
        let mut connection = database.connect_replication().await.unwrap();
        server::ServerIdentity::ask(&mut connection).await.unwrap()
    };
    let before = ask().await;
    let client = database.connect().await.unwrap();
    let row = client.query_one("SHOW data_directory", &[]).await.unwrap();
    let signal = format!(
        "COPY (SELECT 1) TO '{}/standby.signal'",
        row.get::<_, String>(0)
    );
    client.batch_execute(&signal).await.unwrap();
    postgres.stop().await;
    postgres.start_again().await;

    let client = database.connect().await.unwrap();
    let error = server::check(&client).await.unwrap_err();
    assert!(error.to_string().contains("standby"), "{error}");
    let url = format!(
        "{}?target_session_attrs=read-write",
        postgres.url("postgres")
    );
    let wants_primary = super::database(&url);
    let error = wants_primary
        .connect_replication()
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Outage, "{error}");

    client.batch_execute("SELECT pg_promote()").await.unwrap();
    server::check(&client).await.unwrap();
    wants_primary
        .connect_replication()
        .await
        .map(|_| ())
        .unwrap();
    let after = ask().await;
    assert_eq!(after.system, before.system);
    assert_eq!(after.timelines.current(), 2);
    assert_eq!(after.timelines.of(before.wal_end), 1);
    assert_eq!(after.timelines.of(after.wal_end), 2);
}
