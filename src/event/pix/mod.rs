//! Pix messages: the events of type `pix.message.received`, whose `eventData` is one message of the interface that
//! `docs/COLLECTORS.md` describes. Field names are the contract's.

pub mod amount;
mod check;
pub mod document;
mod time;

use super::item::FieldError;
use amount::Cents;
use chrono::{DateTime, Utc};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// The type of their events.
pub const EVENT_TYPE: &str = "pix.message.received";

/// What a message must satisfy besides its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixRules {
    /// The check digits of CPF and CNPJ are verified.
    pub check_digits: bool,
}

/// An account at a bank, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Party {
    #[serde(rename = "nome")]
    pub name: String,
    /// CPF or CNPJ, without punctuation.
    #[serde(rename = "cpfCnpj")]
    pub document: String,
    /// Of the bank: 8 digits.
    pub ispb: String,
    #[serde(rename = "agencia")]
    pub branch: String,
    #[serde(rename = "contaTransacional")]
    pub account: String,
    /// One of [`ACCOUNT_TYPES`].
    #[serde(rename = "tipoConta")]
    pub account_type: String,
}

/// Current, savings, salary and payment account.
pub const ACCOUNT_TYPES: [&str; 4] = ["CACC", "SVGS", "SLRY", "TRAN"];

/// A payment that one bank tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PixMessage {
    /// `E`, the payer's ISPB, the minute of the payment, and 11 letters or digits.
    pub end_to_end_id: String,
    pub amount: Cents,
    pub payer: Party,
    pub receiver: Party,
    pub free_text: String,
    pub tx_id: String,
    pub paid_at: DateTime<Utc>,
}

impl PixMessage {
    /// Reads and checks an event's data.
    ///
    /// # Errors
    /// All errors, field by field; their names begin with `eventData`.
    pub fn parse(data: &str, rules: PixRules) -> Result<Self, Vec<FieldError>> {
        check::message(data, rules)
    }

    /// The message as JSON, with the contract's fields in the contract's order.
    pub fn to_json(&self) -> String {
        // Strings and a number: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Serialize for PixMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("PixMessage", 7)?;
        object.serialize_field("endToEndId", &self.end_to_end_id)?;
        object.serialize_field("valor", &self.amount)?;
        object.serialize_field("pagador", &self.payer)?;
        object.serialize_field("recebedor", &self.receiver)?;
        object.serialize_field("campoLivre", &self.free_text)?;
        object.serialize_field("txId", &self.tx_id)?;
        object.serialize_field("dataHoraPagamento", &time::to_text(self.paid_at))?;
        object.end()
    }
}

/// Whether a text is an ISPB: 8 digits.
pub fn is_ispb(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit())
}
