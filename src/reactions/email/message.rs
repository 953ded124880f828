//! The e-mail as it is sent: headers and MIME parts.

use lettre::Message;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use std::time::SystemTime;

/// What an e-mail is made of. At least one of `text` and `html` is there; no text has a line break or
/// NUL, except these two.
pub(super) struct Contents {
    /// Without angle brackets.
    pub(super) message_id: String,
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
    pub(super) subject: String,
    pub(super) text: Option<String>,
    pub(super) html: Option<String>,
}

impl Contents {
    /// The e-mail, dated now.
    ///
    /// # Errors
    /// Why the contents make none.
    pub(super) fn message(self) -> Result<Message, String> {
        let mut builder = Message::builder()
            .message_id(Some(format!("<{}>", self.message_id)))
            .date(SystemTime::now())
            .from(self.from)
            .subject(self.subject)
            // RFC 3834: keeps automatic replies away.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        for mailbox in self.to {
            builder = builder.to(mailbox);
        }
        let message = match (self.text, self.html) {
            (Some(text), Some(html)) => {
                builder.multipart(MultiPart::alternative_plain_html(text, html))
            }
            (Some(text), None) => builder.singlepart(SinglePart::plain(text)),
            (None, Some(html)) => builder.singlepart(SinglePart::html(html)),
            (None, None) => return Err("the e-mail has no text".to_owned()),
        };
        message.map_err(|error| format!("the e-mail cannot be made: {error}"))
    }
}
