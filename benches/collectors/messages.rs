//! Messages with a number each, by which they are told apart when they come.

use eclusa_bench::http::{Connection, Target};
use memchr::memmem;
use std::ops::Range;

/// Messages of a request.
const BATCH: usize = 500;

/// A message; in place of `{n}` stand the 11 digits of its number, in place of `{ispb}` the receiver's bank. Each
/// number has a payer and a receiver of its own.
pub const TEMPLATE: &str = concat!(
    r#"{"endToEndId":"E32074986202601310930{n}","valor":90.20,"#,
    r#""pagador":{"nome":"Marcos José","cpfCnpj":"98716278190","ispb":"32074986","agencia":"0001","#,
    r#""contaTransacional":"{n}","tipoConta":"CACC"},"#,
    r#""recebedor":{"nome":"Flavio José","cpfCnpj":"77615678291","ispb":"{ispb}","agencia":"0361","#,
    r#""contaTransacional":"{n}","tipoConta":"SVGS"},"#,
    r#""campoLivre":"","txId":"h7a786d8a7s6gd1hgs","dataHoraPagamento":"2026-01-31T09:30:00.108Z"}"#
);

/// The first ISPB; the others follow.
pub const FIRST_ISPB: usize = 10_000_000;

/// The ISPB at a place among those of the run.
pub fn ispb(place: usize) -> String {
    (FIRST_ISPB + place).to_string()
}

/// The path that opens a stream.
pub fn start(ispb: &str) -> String {
    format!("/api/pix/{ispb}/stream/start")
}

fn event(n: usize, ispb: &str) -> String {
    let data = TEMPLATE
        .replace("{n}", &format!("{n:011}"))
        .replace("{ispb}", ispb);
    format!(r#"{{"userId":"77615678291","eventType":"pix.message.received","eventData":{data}}}"#)
}

/// The numbers of the messages in an answer, in their order.
pub fn numbers(body: &[u8]) -> impl Iterator<Item = usize> {
    const FIELD: &[u8] = br#""endToEndId":""#;
    memmem::find_iter(body, FIELD).map(|at| {
        // `E`, the payer's bank and the minute come before it.
        let from = at + FIELD.len() + 21;
        let digits = std::str::from_utf8(&body[from..from + 11]).unwrap();
        digits.parse().expect("a message of this run")
    })
}

/// A client that sends messages.
pub struct Sender {
    target: Target,
    connection: Connection,
}

impl Sender {
    pub async fn connect(target: &Target) -> Self {
        Self {
            target: target.clone(),
            connection: target.connect().await.expect("connects"),
        }
    }

    /// Sends the messages with these numbers, and returns when they are committed. The ISPBs take turns.
    pub async fn spread(&mut self, numbers: Range<usize>, ispbs: usize) {
        for from in numbers.clone().step_by(BATCH) {
            let part = from..numbers.end.min(from + BATCH);
            let events: Vec<String> = part.map(|n| event(n, &ispb(n % ispbs))).collect();
            let body = format!("[{}]", events.join(","));
            self.post(&body, events.len()).await;
        }
    }

    /// Sends one message, and returns when it is committed.
    pub async fn one(&mut self, n: usize, ispb: &str) {
        self.post(&event(n, ispb), 1).await;
    }

    async fn post(&mut self, body: &str, events: usize) {
        let request = self.target.post_head(body.len()) + body;
        let answer = self.connection.exchange(request.as_bytes()).await;
        let answer = answer.expect("an answer");
        // No queue stands before the store: what is accepted is committed.
        let stored = memmem::find_iter(answer.body, b"\"stored\"").count();
        let text = String::from_utf8_lossy(answer.body);
        assert_eq!((answer.status / 100, stored), (2, events), "{text}");
    }
}
