//! Which tables can be captured, and the publication.

use super::{Bench, database};
use eclusa::capture::catalog::publication::{self, PublicationChange};
use eclusa::capture::catalog::{TableName, look_at};
use eclusa::capture::message::ReplicaIdentity;
use eclusa::capture::value::ValueKind;
use eclusa::capture::{CaptureFault, ColumnRules, TableShape};
use eclusa::store::ErrorKind;
use eclusa::store::postgres::{PostgresOptions, migrate};

#[tokio::test]
async fn a_table_is_known_by_its_columns_key_and_types() {
    let bench = Bench::start(
        "CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); \
         CREATE DOMAIN list AS positive[]; CREATE SCHEMA \"My Shop\"; \
         CREATE TABLE \"My Shop\".\"T\" (b int, a list, m mood, ms mood[], gone int, \
         twice int GENERATED ALWAYS AS (b * 2) STORED, n numeric(5, 2), c char(3), id uuid, \
         PRIMARY KEY (id, b) INCLUDE (n)); \
         ALTER TABLE \"My Shop\".\"T\" DROP COLUMN gone, REPLICA IDENTITY FULL",
        &[],
    )
    .await;
    let table = bench.table("My Shop.T").await;
    assert_eq!(table.key, ["id", "b"]);
    assert_eq!(table.identity, ReplicaIdentity::Full);
    assert!(!table.partitioned);
    let array = |element| ValueKind::Array {
        element: Box::new(element),
        delimiter: b',',
    };
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|column| (&*column.name, table.kind_of(column.type_oid)))
        .collect();
    assert_eq!(
        columns,
        [
            ("b", ValueKind::Integer),
            ("a", array(ValueKind::Integer)),
            ("m", ValueKind::Other),
            ("ms", array(ValueKind::Other)),
            ("n", ValueKind::Numeric),
            ("c", ValueKind::Text),
            ("id", ValueKind::Other),
        ]
    );
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    for (rules, words) in [
        (
            ColumnRules {
                exclude: names(&["b"]),
                mask: vec![],
            },
            "primary key",
        ),
        (
            ColumnRules {
                exclude: vec![],
                mask: names(&["id"]),
            },
            "primary key",
        ),
        (
            ColumnRules {
                exclude: vec![],
                mask: names(&["nothing"]),
            },
            "no column",
        ),
    ] {
        let error = TableShape::of_table(&table, &rules).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_captured_is_refused_with_words() {
    let bench = Bench::start(
        "CREATE TABLE bare (n int); CREATE UNLOGGED TABLE fast (id int PRIMARY KEY); \
         CREATE VIEW seen AS SELECT 1 AS id; CREATE MATERIALIZED VIEW stored AS SELECT 1 AS id; \
         CREATE TABLE silent (id int PRIMARY KEY); ALTER TABLE silent REPLICA IDENTITY NOTHING; \
         CREATE TABLE other (id int PRIMARY KEY, n int NOT NULL UNIQUE); \
         ALTER TABLE other REPLICA IDENTITY USING INDEX other_n_key; \
         CREATE TABLE late (id int PRIMARY KEY DEFERRABLE); CREATE SEQUENCE numbers; \
         CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; \
         CREATE FOREIGN TABLE far (id int) SERVER s; \
         CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (9); \
         ALTER TABLE part_1 REPLICA IDENTITY NOTHING",
        &[],
    )
    .await;
    for (table, words) in [
        ("public.missing", "does not exist"),
        ("missing.t", "does not exist"),
        ("public.bare", "no primary key"),
        ("public.fast", "unlogged"),
        ("public.seen", "is a view"),
        ("public.stored", "is a view"),
        ("public.far", "foreign table"),
        ("public.numbers", "is no table"),
        ("public.silent", "REPLICA IDENTITY NOTHING"),
        ("public.other", "USING INDEX"),
        ("public.late", "deferrable"),
        ("public.part", "public.part_1"),
    ] {
        let name: TableName = table.parse().unwrap();
        let error = look_at(&bench.client, &name).await.unwrap_err();
        assert_eq!(error.fault(), CaptureFault::Table, "{table}: {error}");
        assert_eq!(error.kind(), ErrorKind::Operator);
        assert!(error.to_string().contains(words), "{table}: {error}");
    }
    bench
        .execute("ALTER TABLE public.late REPLICA IDENTITY FULL")
        .await;
    bench.table("public.late").await;
}

#[tokio::test]
async fn a_missing_grant_is_named() {
    let bench = Bench::start(
        "CREATE SCHEMA shut; CREATE TABLE shut.t (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY)",
        &[],
    )
    .await;
    let role = format!("reader_{}", bench.slot);
    bench
        .execute(&format!("CREATE ROLE {role} LOGIN REPLICATION"))
        .await;
    let reader = database(&bench.url.replace("postgres@", &format!("{role}@")));
    let client = reader.connect().await.unwrap();
    for (table, grant) in [
        ("public.t", format!("GRANT SELECT ON public.t TO {role}")),
        ("shut.t", format!("GRANT USAGE ON SCHEMA shut TO {role}")),
    ] {
        let name: TableName = table.parse().unwrap();
        let error = look_at(&client, &name).await.unwrap_err();
        assert_eq!(error.fault(), CaptureFault::NoRight);
        assert!(error.to_string().contains(&grant), "{error}");
    }
    bench
        .execute(&format!("GRANT SELECT ON public.t TO {role}"))
        .await;
    let table = look_at(&client, &"public.t".parse().unwrap())
        .await
        .unwrap();
    // A publication of a table is made by the table's owner.
    let error = publication::ensure(&client, "mine", &[table])
        .await
        .unwrap_err();
    assert_eq!(error.fault(), CaptureFault::NoRight, "{error}");
    assert!(error.to_string().contains("publication"), "{error}");
}

#[tokio::test]
async fn the_publication_is_made_to_publish_these_tables() {
    let bench = Bench::start(
        "CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE \"b'\"\"\" (id int PRIMARY KEY); \
         CREATE TABLE child () INHERITS (a)",
        &["public.a"],
    )
    .await;
    let ensure = async |tables: &[_]| {
        publication::ensure(&bench.client, "captured", tables)
            .await
            .unwrap()
    };
    let published = async || {
        let rows = bench
            .client
            .query(
                "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'captured' ORDER BY 1",
                &[],
            )
            .await;
        let name = |row: &tokio_postgres::Row| row.get::<_, String>(0);
        rows.unwrap().iter().map(name).collect::<Vec<_>>()
    };
    let a = bench.table("public.a").await;
    let b = bench.table("public.b'\"").await;
    assert_eq!(
        ensure(std::slice::from_ref(&a)).await,
        PublicationChange::None
    );
    assert_eq!(published().await, ["a"]);
    let both = [b, a.clone()];
    assert_eq!(ensure(&both).await, PublicationChange::Changed);
    assert_eq!(ensure(&both).await, PublicationChange::None);
    assert_eq!(published().await, ["a", "b'\""]);
    for change in [
        "ALTER PUBLICATION captured SET (publish = 'insert')",
        "ALTER PUBLICATION captured SET TABLE ONLY public.a WHERE (id > 5), ONLY public.\"b'\"\"\"",
        "ALTER PUBLICATION captured SET TABLE ONLY public.a (id), ONLY public.\"b'\"\"\"",
        "ALTER PUBLICATION captured ADD TABLES IN SCHEMA public",
    ] {
        bench.execute(change).await;
        assert_eq!(ensure(&both).await, PublicationChange::Changed, "{change}");
        assert_eq!(ensure(&both).await, PublicationChange::None, "{change}");
    }
    publication::remove(&bench.client, "captured")
        .await
        .unwrap();
    publication::remove(&bench.client, "captured")
        .await
        .unwrap();
    bench
        .execute("CREATE PUBLICATION captured FOR ALL TABLES")
        .await;
    let error = publication::ensure(&bench.client, "captured", &both)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("all tables"), "{error}");
}

#[tokio::test]
async fn eclusas_own_tables_are_refused_and_those_beside_them_are_not() {
    let bench = Bench::start(
        "CREATE SCHEMA eclusa_views; CREATE TABLE eclusa_views.v (id int PRIMARY KEY); \
         CREATE TABLE product (id int PRIMARY KEY); \
         CREATE SCHEMA shop; CREATE TABLE shop.clients (id int PRIMARY KEY)",
        &[],
    )
    .await;
    migrate(&PostgresOptions::new(&bench.url)).await.unwrap();
    let rows = bench
        .client
        .query(
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE nspname = 'public' AND relkind IN ('r', 'p') AND relname <> 'product'",
            &[],
        )
        .await
        .unwrap();
    assert!(rows.len() > 20);
    let own = rows
        .iter()
        .map(|row| format!("public.{}", row.get::<_, String>(0)));
    for table in own.chain(["eclusa_views.v".to_owned()]) {
        let name: TableName = table.parse().unwrap();
        let error = look_at(&bench.client, &name).await.unwrap_err();
        assert!(
            error.to_string().contains("Eclusa's own"),
            "{table}: {error}"
        );
    }
    bench.table("public.product").await;
    bench.table("shop.clients").await;
}

#[tokio::test]
async fn a_publication_that_another_role_has_made_stays() {
    let schema =
        "CREATE TABLE a (id int PRIMARY KEY); CREATE PUBLICATION captured FOR TABLE ONLY a";
    let bench = Bench::start(schema, &[]).await;
    let is_there = async || {
        let count = "SELECT count(*) FROM pg_publication WHERE pubname = 'captured'";
        let row = bench.client.query_one(count, &[]).await.unwrap();
        row.get::<_, i64>(0) == 1
    };
    let role = format!("role_{}", bench.slot);
    bench
        .execute(&format!("CREATE ROLE {role}; SET ROLE {role}"))
        .await;
    publication::remove(&bench.client, "captured")
        .await
        .unwrap();
    bench
        .execute(&format!("RESET ROLE; DROP ROLE {role}"))
        .await;
    assert!(is_there().await);
    publication::remove(&bench.client, "captured")
        .await
        .unwrap();
    assert!(!is_there().await);
}
