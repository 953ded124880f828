//! One e-mail handed to an SMTP server.

use super::answers;
use super::connections::Connections;
use crate::reactions::HandlerError;
use lettre::Message;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{Extension, MailBodyParameter, MailParameter};

/// Sends an e-mail over a connection of `connections`, and keeps the connection if it is in order.
///
/// A recipient that the server cannot take now stops the e-mail for all, so that none gets it twice;
/// one that it refuses for good does not.
///
/// # Errors
/// Why not every recipient has it, and what is to follow.
pub(super) async fn send(connections: &Connections, message: &Message) -> Result<(), HandlerError> {
    let mut connection = connections.take().await?;
    let sent = exchange(&mut connection, connections, message).await;
    // A refused e-mail leaves the session usable, but the next one must begin with none under way.
    let usable = match &sent {
        Ok(()) => true,
        Err(HandlerError::Discard(_)) => connection.command(Rset).await.is_ok(),
        Err(_) => false,
    };
    if usable {
        connections.put(connection);
    }
    sent
}

async fn exchange(
    connection: &mut AsyncSmtpConnection,
    connections: &Connections,
    message: &Message,
) -> Result<(), HandlerError> {
    let (server, hidden) = (connections.server(), connections.hidden());
    let envelope = message.envelope();
    let mut parameters = Vec::new();
    let addresses = envelope.to().iter().chain(envelope.from());
    if !addresses.map(AsRef::<str>::as_ref).all(str::is_ascii) {
        let info = connection.server_info();
        if !info.supports_feature(Extension::SmtpUtfEight) {
            return Err(HandlerError::Discard(format!(
                "an address has letters outside of ASCII before the @, and {server} takes none (SMTPUTF8)"
            )));
        }
        parameters.push(MailParameter::SmtpUtfEight);
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let mail = Mail::new(envelope.from().cloned(), parameters);
    connection
        .command(mail)
        .await
        .map_err(|error| answers::outcome(&error, &server, "MAIL", hidden))?;

    let mut refusals = Vec::new();
    for (recipient, number) in envelope.to().iter().zip(1..) {
        match connection
            .command(Rcpt::new(recipient.clone(), Vec::new()))
            .await
        {
            Ok(_) => {}
            Err(error) if answers::is_refusal(&error) => {
                refusals.push(format!(
                    "recipient {number}: {}",
                    answers::words(&error, hidden)
                ));
            }
            Err(error) => return Err(answers::outcome(&error, &server, "RCPT", hidden)),
        }
    }
    let all = envelope.to().len();
    let accepted = all.saturating_sub(refusals.len());
    let shown = refusals
        .iter()
        .take(3)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if accepted == 0 {
        return Err(HandlerError::Discard(format!(
            "{server} refuses every recipient: {shown}"
        )));
    }
    let contents = message.formatted();
    connection
        .command(Data)
        .await
        .map_err(|error| answers::outcome(&error, &server, "DATA", hidden))?;
    connection
        .message(&contents)
        .await
        .map_err(|error| answers::outcome(&error, &server, "the end of the data", hidden))?;
    if refusals.is_empty() {
        return Ok(());
    }
    Err(HandlerError::Discard(format!(
        "sent to {accepted} of {all} recipients; {server} refuses the others: {shown}"
    )))
}
