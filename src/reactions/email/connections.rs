//! Connections to the SMTP server, kept for the next e-mail.
//!
//! lettre's own pool takes a connection back in any state: also in the middle of an e-mail, when
//! the sender is cancelled at its deadline. The next e-mail would then read the answers to the last.

use super::answers;
use crate::config::reactions::email::{EmailSettings, SmtpTls};
use crate::reactions::HandlerError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Most connections that are kept while no e-mail uses them.
const MAX_IDLE: usize = 8;
/// How long one is kept: servers end a session after some minutes of silence.
const MAX_IDLE_TIME: Duration = Duration::from_secs(60);

/// User and password.
pub(super) struct Login {
    credentials: Credentials,
    /// What no error may show: the password as it is and as it is sent.
    hidden: Vec<String>,
}

impl Login {
    pub(super) fn new(user: &str, password: &str) -> Self {
        Self {
            credentials: Credentials::new(user.to_owned(), password.to_owned()),
            hidden: vec![
                BASE64.encode(format!("\0{user}\0{password}")),
                BASE64.encode(password),
                password.to_owned(),
            ],
        }
    }
}

struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
}

/// An SMTP server and the connections to it that no e-mail uses now.
pub(super) struct Connections {
    host: String,
    port: u16,
    tls: SmtpTls,
    parameters: Option<TlsParameters>,
    login: Option<Login>,
    /// Name that the client gives itself.
    client: ClientId,
    connect_timeout: Duration,
    idle: Mutex<Vec<Idle>>,
}

impl Connections {
    /// No connection is made yet. `client` is the client's host name in ASCII, `certificate` a PEM.
    ///
    /// # Errors
    /// Why TLS cannot be set up.
    pub(super) fn new(
        settings: &EmailSettings,
        client: &str,
        certificate: Option<&str>,
        login: Option<Login>,
    ) -> Result<Self, String> {
        let parameters = match settings.tls {
            SmtpTls::None => None,
            SmtpTls::Required | SmtpTls::Implicit => {
                let mut builder = TlsParameters::builder(settings.host.clone());
                if let Some(pem) = certificate {
                    let parsed = Certificate::from_pem(pem.as_bytes()).ok();
                    // lettre takes a text without any certificate for none to add.
                    let certificate = parsed
                        .filter(|_| pem.contains("-----BEGIN CERTIFICATE-----"))
                        .ok_or("is not the PEM of a certificate")?;
                    builder = builder.add_root_certificate(certificate);
                }
                Some(
                    builder
                        .build()
                        .map_err(|error| answers::words(&error, &[]))?,
                )
            }
        };
        Ok(Self {
            host: settings.host.clone(),
            port: settings.port_in_force(),
            tls: settings.tls,
            parameters,
            login,
            client: ClientId::Domain(client.to_owned()),
            // Of each address of the server, so that one that is silent leaves time for another.
            connect_timeout: settings.time_limit() / 3,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// The server as errors name it.
    pub(super) fn server(&self) -> String {
        format!("the SMTP server {}:{}", self.host, self.port)
    }

    /// What no error may show.
    pub(super) fn hidden(&self) -> &[String] {
        self.login.as_ref().map_or(&[], |login| &login.hidden)
    }

    /// A connection that is ready for an e-mail: an idle one that still answers, or a new one.
    pub(super) async fn take(&self) -> Result<AsyncSmtpConnection, HandlerError> {
        while let Some(mut connection) = self.take_idle() {
            if connection.test_connected().await {
                return Ok(connection);
            }
        }
        let mut connection = self.connect().await?;
        if let Some(login) = &self.login {
            let answer = connection
                .auth(DEFAULT_MECHANISMS, &login.credentials)
                .await;
            answer.map_err(|error| match error.is_permanent() {
                true => self.failed(
                    &error,
                    "refuses the user or the password; check the settings user and password",
                ),
                false => self.failed(&error, "cannot check user and password"),
            })?;
        }
        Ok(connection)
    }

    /// Keeps a connection on which no e-mail is under way.
    pub(super) fn put(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    fn take_idle(&self) -> Option<AsyncSmtpConnection> {
        let mut idle = self.idle.lock();
        idle.retain(|idle| idle.since.elapsed() < MAX_IDLE_TIME);
        idle.pop().map(|idle| idle.connection)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, HandlerError> {
        let implicit = (self.tls == SmtpTls::Implicit)
            .then(|| self.parameters.clone())
            .flatten();
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            (self.host.as_str(), self.port),
            Some(self.connect_timeout),
            &self.client,
            implicit,
            None,
        )
        .await
        .map_err(|error| self.failed(&error, "cannot be reached"))?;
        if self.tls == SmtpTls::Required {
            if !connection.can_starttls() {
                return Err(HandlerError::Failed(format!(
                    "{} does not offer STARTTLS, which tls = \"required\" asks for; nothing is sent. Some servers \
                     take TLS on port 465 with tls = \"implicit\"; tls = \"none\" sends unencrypted",
                    self.server()
                )));
            }
            if let Some(parameters) = self.parameters.clone() {
                connection
                    .starttls(parameters, &self.client)
                    .await
                    .map_err(|error| self.failed(&error, "cannot be reached over TLS"))?;
            }
        }
        Ok(connection)
    }

    /// Before an e-mail is begun, no answer is about it: the run is tried again.
    fn failed(&self, error: &Error, what: &str) -> HandlerError {
        let words = answers::words(error, self.hidden());
        HandlerError::Failed(format!("{} {what}: {words}", self.server()))
    }
}
