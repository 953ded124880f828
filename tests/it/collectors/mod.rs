//! Collectors over real HTTP. The tests in `contract_*` are the sentences of the contract in docs/COLLECTORS.md.

mod amqp;
mod bound_keys;
mod changed_settings;
mod collection;
mod command_line;
mod contract_collectors;
mod contract_endpoints;
mod contract_messages;
mod contract_reading;
mod example;
mod hanging_up;
mod imported;
mod locked;
mod losses;
mod records;
mod replicas;
mod slow_readers;
mod storm;
mod streams;
mod undeliverable;

use crate::followers::Place;
use crate::harness::{App, AppBuilder, Postgres};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Much longer than anything but a poll takes.
const SOON: Duration = Duration::from_secs(20);

/// A running server, and a client of it. Each test has ISPBs of its own.
pub struct Api {
    url: String,
    client: Client,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub kind: String,
    pub next: Option<String>,
    pub retry_after: Option<u64>,
    pub cache_control: Option<String>,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The `endToEndId`s of a 200.
    pub fn ids(&self) -> Vec<String> {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        let id = |message: &Value| message["endToEndId"].as_str().unwrap().to_owned();
        match self.json() {
            Value::Array(messages) => messages.iter().map(id).collect(),
            message => vec![id(&message)],
        }
    }

    /// `Pull-Next`.
    pub fn next(&self) -> String {
        self.next
            .clone()
            .unwrap_or_else(|| panic!("no Pull-Next: {self:?}"))
    }

    /// Checks that it is an error as it should be.
    pub fn assert_problem(&self, status: StatusCode) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.kind, "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], status.as_u16());
        assert!(
            body["detail"]
                .as_str()
                .is_some_and(|detail| detail.len() > 10),
            "{body}"
        );
    }
}

async fn read(response: Response) -> reqwest::Result<Answer> {
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    Ok(Answer {
        status: response.status(),
        kind: header("content-type").unwrap_or_default(),
        next: header("pull-next"),
        retry_after: header("retry-after").map(|seconds| seconds.parse().unwrap()),
        cache_control: header("cache-control"),
        text: response.text().await?,
    })
}

impl Api {
    pub fn of(app: &App) -> Self {
        Self::at(app.url(), HeaderMap::new())
    }

    /// A client with an API key.
    pub fn with_key(app: &App, key: &str) -> Self {
        let value = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
        Self::at(app.url(), HeaderMap::from_iter([(AUTHORIZATION, value)]))
    }

    fn at(url: &str, headers: HeaderMap) -> Self {
        let client = Client::builder().no_proxy().default_headers(headers);
        Self {
            url: url.to_owned(),
            client: client.timeout(Duration::from_secs(60)).build().unwrap(),
        }
    }

    async fn on_postgres() -> Self {
        static APP: OnceCell<App> = OnceCell::const_new();
        let start = async || {
            let url = Postgres::shared().await.database().await;
            App::builder().postgres(&url).start().await
        };
        Self::of(APP.get_or_init(start).await)
    }

    async fn on_sqlite() -> Self {
        static APP: OnceCell<(App, TempDir)> = OnceCell::const_new();
        let start = async || {
            let folder = tempfile::tempdir().unwrap();
            (App::builder().embedded(folder.path()).start().await, folder)
        };
        Self::of(&APP.get_or_init(start).await.0)
    }

    pub async fn send(&self, method: Method, path: &str, accept: Option<&str>) -> Answer {
        self.try_send(method, path, accept).await.unwrap()
    }

    /// For when the answer may be lost.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        accept: Option<&str>,
    ) -> reqwest::Result<Answer> {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(accept) = accept {
            request = request.header(ACCEPT, accept);
        }
        read(request.send().await?).await
    }

    /// One message.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    /// Up to ten messages.
    pub async fn many(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Some("multipart/json")).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.client.post(format!("{}{path}", self.url)).json(body);
        read(request.send().await.unwrap()).await.unwrap()
    }

    /// Has messages made that can be collected then.
    pub async fn make(&self, ispb: &str, number: u32) {
        let path = format!("/api/util/msgs/{ispb}/{number}");
        let answer = self.send(Method::POST, &path, None).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }

    /// Sends a message as an event, and waits until it can be collected or is known.
    pub async fn tell(&self, data: &Value) -> Answer {
        let event = json!({"userId": "u", "eventType": "pix.message.received", "eventData": data});
        self.post("/v1/events", &event).await
    }

    /// How many messages of an ISPB wait, and how many are with each of its streams.
    pub async fn level(&self, ispb: &str) -> (u64, Vec<u64>) {
        let place = self.get(&format!("/v1/streams/pix/{ispb}")).await.json();
        let sessions = place["sessions"].as_array().unwrap();
        let leased = sessions
            .iter()
            .map(|session| session["leased"].as_u64().unwrap());
        (place["waiting"].as_u64().unwrap(), leased.collect())
    }
}

pub fn start(ispb: &str) -> String {
    format!("/api/pix/{ispb}/stream/start")
}

/// An ISPB that no other test has.
pub fn fresh_ispb() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(10_000_000);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// The contract's example, for a receiver and with an `endToEndId` of its own.
pub fn example(ispb: &str) -> Value {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let text = r#"{
        "endToEndId": "E320749862024022119277T3lEBbUM0z", "valor": 90.20,
        "pagador": {"nome": "Marcos José", "cpfCnpj": "98716278190", "ispb": "32074986", "agencia": "0001",
                    "contaTransacional": "1231231", "tipoConta": "CACC"},
        "recebedor": {"nome": "Flavio José", "cpfCnpj": "77615678291", "ispb": "00000000", "agencia": "0361",
                      "contaTransacional": "1210098", "tipoConta": "SVGS"},
        "campoLivre": "", "txId": "h7a786d8a7s6gd1hgs", "dataHoraPagamento": "2022-07-23T19:47:18.108Z"
    }"#;
    let mut message: Value = serde_json::from_str(text).unwrap();
    message["recebedor"]["ispb"] = ispb.into();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    message["endToEndId"] = format!("E32074986202402211927{number:011}").into();
    message
}

/// A server on this store.
pub fn on(place: &Place) -> AppBuilder {
    match (&place.url, &place.folder) {
        (Some(url), _) => App::builder().postgres(url),
        (None, folder) => App::builder().embedded(folder.as_ref().unwrap().path()),
    }
}

/// Each case against a server on either store.
macro_rules! on_both_servers {
    ($($case:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&crate::collectors::Api::on_postgres().await).await;
            })+
        }
        mod on_sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&crate::collectors::Api::on_sqlite().await).await;
            })+
        }
    };
}
use on_both_servers;
