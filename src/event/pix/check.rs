//! The fields of a Pix message as they come, and what is wrong with them.

use super::amount::Cents;
use super::{ACCOUNT_TYPES, Party, PixMessage, PixRules, document, is_ispb, time};
use crate::event::item::FieldError;
use crate::event::members::Members;
use chrono::NaiveDateTime;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Longest name of a party, and longest free text.
const MAX_TEXT: usize = 140;
/// Longest `txId`.
const MAX_TX_ID: usize = 35;
/// Longest branch and account.
const MAX_BRANCH: usize = 4;
const MAX_ACCOUNT: usize = 20;

/// The fields of an object; of a name that comes twice, the second one is an error.
struct Object<'a, 'f> {
    /// With a dot at the end.
    path: &'f str,
    fields: BTreeMap<String, &'a RawValue>,
    found: &'f mut Vec<FieldError>,
}

pub(super) fn message(data: &str, rules: PixRules) -> Result<PixMessage, Vec<FieldError>> {
    let mut found = Vec::new();
    let message = read(data, rules, &mut found);
    match message {
        Some(message) if found.is_empty() => Ok(message),
        _ => Err(found),
    }
}

fn read(data: &str, rules: PixRules, found: &mut Vec<FieldError>) -> Option<PixMessage> {
    let mut object = Object::read("eventData.", data, found)?;
    let end_to_end_id = object.text("endToEndId", 32);
    let amount = object.take("valor").and_then(|value| {
        let amount = Cents::parse(value.get());
        amount.map_err(|reason| object.error("valor", reason)).ok()
    });
    let payer = object.take("pagador");
    let receiver = object.take("recebedor");
    let free_text = object.optional_text("campoLivre", MAX_TEXT);
    let tx_id = object.optional_text("txId", MAX_TX_ID);
    let paid_at = object.text("dataHoraPagamento", 40).and_then(|text| {
        let time = time::parse(&text);
        let reason = "must be a time such as 2022-07-23T19:47:18.108Z";
        object.check("dataHoraPagamento", time.is_none().then_some(reason));
        time
    });
    object.end();
    let party = |name: &str, value: Option<&RawValue>, found: &mut Vec<FieldError>| {
        party(&format!("eventData.{name}."), value?.get(), rules, found)
    };
    let payer = party("pagador", payer, found);
    let receiver = party("recebedor", receiver, found);
    if let Some(id) = &end_to_end_id
        && let Err(reason) = end_to_end(id, payer.as_ref())
    {
        found.push(FieldError::new("eventData.endToEndId", reason));
    }
    Some(PixMessage {
        end_to_end_id: end_to_end_id?,
        amount: amount?,
        payer: payer?,
        receiver: receiver?,
        free_text: free_text?,
        tx_id: tx_id?,
        paid_at: paid_at?,
    })
}

fn party(path: &str, data: &str, rules: PixRules, found: &mut Vec<FieldError>) -> Option<Party> {
    let mut object = Object::read(path, data, found)?;
    let name = object.text("nome", MAX_TEXT);
    let document = object.text("cpfCnpj", 14).filter(|text| {
        let reason = match document::is_document(text) {
            false => {
                Some("must be a CPF of 11 digits or a CNPJ of 14 characters, without punctuation")
            }
            true if rules.check_digits && !document::has_right_digits(text) => {
                Some("has wrong check digits")
            }
            true => None,
        };
        object.check("cpfCnpj", reason)
    });
    let ispb = object.text("ispb", 8).filter(|text| {
        let reason = (!is_ispb(text)).then_some("must have 8 digits");
        object.check("ispb", reason)
    });
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let branch = object.text("agencia", MAX_BRANCH).filter(|text| {
        let reason = (!digits(text)).then_some("must have 1 to 4 digits");
        object.check("agencia", reason)
    });
    let account = object
        .text("contaTransacional", MAX_ACCOUNT)
        .filter(|text| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let reason = (!is_plain).then_some("must have 1 to 20 letters or digits");
            object.check("contaTransacional", reason)
        });
    let account_type = object.text("tipoConta", 4).filter(|text| {
        let is_known = ACCOUNT_TYPES.contains(&text.as_str());
        let reason = (!is_known).then_some("must be CACC, SVGS, SLRY or TRAN");
        object.check("tipoConta", reason)
    });
    object.end();
    Some(Party {
        name: name?,
        document: document?,
        ispb: ispb?,
        branch: branch?,
        account: account?,
        account_type: account_type?,
    })
}

/// Checks the form, and that it names the payer's bank.
fn end_to_end(id: &str, payer: Option<&Party>) -> Result<(), String> {
    const FORM: &str =
        "must be E, the payer's ISPB, the time as yyyyMMddHHmm, and 11 letters or digits";
    let (Some("E"), Some(ispb), Some(minute), Some(rest)) =
        (id.get(..1), id.get(1..9), id.get(9..21), id.get(21..))
    else {
        return Err(FORM.to_owned());
    };
    let is_minute = minute.bytes().all(|byte| byte.is_ascii_digit())
        && NaiveDateTime::parse_from_str(minute, "%Y%m%d%H%M").is_ok();
    let is_rest = rest.len() == 11 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_ispb(ispb) || !is_minute || !is_rest {
        return Err(FORM.to_owned());
    }
    match payer {
        Some(payer) if payer.ispb != ispb => Err(format!(
            "names the bank {ispb}, and pagador.ispb is {}",
            payer.ispb
        )),
        _ => Ok(()),
    }
}

impl<'a, 'f> Object<'a, 'f> {
    /// Takes an object apart; an error if it is none.
    fn read(path: &'f str, data: &'a str, found: &'f mut Vec<FieldError>) -> Option<Self> {
        let Ok(Members(members)) = serde_json::from_str(data) else {
            let name = path.trim_end_matches('.');
            found.push(FieldError::new(name, "must be an object"));
            return None;
        };
        let mut fields = BTreeMap::new();
        for (name, value) in members {
            if fields.insert(name.clone(), value).is_some() {
                found.push(FieldError::new(&format!("{path}{name}"), "comes twice"));
            }
        }
        Some(Self {
            path,
            fields,
            found,
        })
    }

    fn error(&mut self, name: &str, reason: impl Into<String>) {
        let field = format!("{}{name}", self.path);
        self.found.push(FieldError::new(&field, reason));
    }

    /// Adds the reason, if there is one. Whether there is none.
    fn check(&mut self, name: &str, reason: Option<&str>) -> bool {
        if let Some(reason) = reason {
            self.error(name, reason);
        }
        reason.is_none()
    }

    fn given(&mut self, name: &str) -> Option<&'a RawValue> {
        let value = self.fields.remove(name)?;
        (value.get() != "null").then_some(value)
    }

    fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let value = self.given(name);
        if value.is_none() {
            self.error(name, "is required");
        }
        value
    }

    fn text(&mut self, name: &str, max: usize) -> Option<String> {
        let text = self
            .take(name)
            .and_then(|value| self.read_text(name, value, max))?;
        if text.trim().is_empty() {
            self.error(name, "must not be empty");
            return None;
        }
        Some(text)
    }

    /// Empty if it is absent; `None` if it is wrong.
    fn optional_text(&mut self, name: &str, max: usize) -> Option<String> {
        match self.given(name) {
            Some(value) => self.read_text(name, value, max),
            None => Some(String::new()),
        }
    }

    fn read_text(&mut self, name: &str, value: &RawValue, max: usize) -> Option<String> {
        let Ok(text) = serde_json::from_str::<String>(value.get()) else {
            self.error(name, "must be a string");
            return None;
        };
        if text.chars().count() > max {
            self.error(name, format!("must have at most {max} characters"));
            return None;
        }
        Some(text)
    }

    /// What is left is unknown.
    fn end(mut self) {
        for (name, _) in std::mem::take(&mut self.fields) {
            let shown: String = name.chars().take(64).collect();
            self.error(&shown, "is not a field of a Pix message");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const RULES: PixRules = PixRules {
        check_digits: false,
    };

    fn example() -> Value {
        json!({
            "endToEndId": "E320749862024022119277T3lEBbUM0z", "valor": 90.25,
            "pagador": {"nome": "Marcos José", "cpfCnpj": "98716278190", "ispb": "32074986", "agencia": "0001",
                        "contaTransacional": "1231231", "tipoConta": "CACC"},
            "recebedor": {"nome": "Flavio José", "cpfCnpj": "77615678291", "ispb": "00000000", "agencia": "0361",
                          "contaTransacional": "1210098", "tipoConta": "SVGS"},
            "campoLivre": "", "txId": "h7a786d8a7s6gd1hgs", "dataHoraPagamento": "2022-07-23T19:47:18.108Z"
        })
    }

    #[test]
    fn the_contracts_example_comes_back_as_it_is() {
        let text = example().to_string().replace("90.25", "90.20");
        let message = PixMessage::parse(&text, RULES).unwrap();
        let json = message.to_json();
        assert!(json.starts_with(r#"{"endToEndId":"E320749862024022119277T3lEBbUM0z","valor":90.20,"pagador":{"nome""#), "{json}");
        assert!(json.ends_with(r#""campoLivre":"","txId":"h7a786d8a7s6gd1hgs","dataHoraPagamento":"2022-07-23T19:47:18.108Z"}"#), "{json}");
        assert_eq!(PixMessage::parse(&json, RULES).unwrap(), message);
    }

    #[test]
    fn all_errors_are_told_at_once_with_their_paths() {
        let mut message = example();
        message["valor"] = json!("90.20");
        message["endToEndId"] = json!("E111111112024022119277T3lEBbUM0z");
        message["pagador"]["cpfCnpj"] = json!("123");
        message["pagador"]["tipoConta"] = json!("XXXX");
        message["recebedor"]["ispb"] = json!("0000000a");
        message["recebedor"]["agencia"] = json!(361);
        message["txid"] = json!("x");
        let mut found: Vec<String> = PixMessage::parse(&message.to_string(), RULES)
            .unwrap_err()
            .into_iter()
            .map(|error| error.field)
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "eventData.pagador.cpfCnpj",
                "eventData.pagador.tipoConta",
                "eventData.recebedor.agencia",
                "eventData.recebedor.ispb",
                "eventData.txid",
                "eventData.valor",
            ]
        );
        let mut message = example();
        message["endToEndId"] = json!("E111111112024022119277T3lEBbUM0z");
        let found = PixMessage::parse(&message.to_string(), RULES).unwrap_err();
        assert!(found[0].reason.contains("32074986"), "{found:?}");
        for id in [
            "E320749862024023019277T3lEBbUM0z",
            "E320749862024022119277T3lEBbUM0",
            "320749862024022119277T3lEBbUM0zz",
            "E320749862024022119277T3lEBbUM0ç",
        ] {
            message["endToEndId"] = json!(id);
            assert!(
                PixMessage::parse(&message.to_string(), RULES).is_err(),
                "{id}"
            );
        }
    }

    #[test]
    fn check_digits_are_verified_if_the_rules_say_so() {
        let rules = PixRules { check_digits: true };
        let found = PixMessage::parse(&example().to_string(), rules).unwrap_err();
        assert_eq!(found.len(), 2, "{found:?}");
        let mut message = example();
        message["pagador"]["cpfCnpj"] = json!("52998224725");
        message["recebedor"]["cpfCnpj"] = json!("11444777000161");
        assert!(PixMessage::parse(&message.to_string(), rules).is_ok());
    }
}
