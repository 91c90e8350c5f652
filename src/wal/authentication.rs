//! Proving who we are: SCRAM-SHA-256 with and without channel binding, MD5, clear text where nobody listens, trust.

use super::session::{BackendMessage, Session};
use crate::connect::{ChannelBinding, ConnectError, Password, ServerError, Settings};
use bytes::Bytes;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::backend::{AUTHENTICATION_TAG, ERROR_RESPONSE_TAG, NOTICE_RESPONSE_TAG};
use postgres_protocol::message::frontend;

/// Codes of the Authentication messages (section 55.7 of PostgreSQL's manual).
mod code {
    pub(super) const OK: u32 = 0;
    pub(super) const CLEARTEXT: u32 = 3;
    pub(super) const MD5: u32 = 5;
    pub(super) const SASL: u32 = 10;
    pub(super) const SASL_CONTINUE: u32 = 11;
    pub(super) const SASL_FINAL: u32 = 12;
}

/// Answers the server until it says AuthenticationOk.
pub(super) async fn authenticate(session: &mut Session, settings: &Settings) -> Result<(), ConnectError> {
    let exchange = &mut Exchange { session, settings };
    let (code, body) = exchange.receive().await?;
    match code {
        code::OK => return exchange.without_channel_binding(),
        code::SASL => exchange.scram(&body).await?,
        code::CLEARTEXT => {
            exchange.without_channel_binding()?;
            exchange.clear_text().await?;
        }
        code::MD5 => {
            exchange.without_channel_binding()?;
            exchange.md5(&body).await?;
        }
        code => return Err(exchange.unsupported(&format!("method {code}"))),
    }
    match exchange.receive().await? {
        (code::OK, _) => Ok(()),
        (code, _) => Err(exchange.protocol(&format!("authentication message {code} instead of the verdict"))),
    }
}

struct Exchange<'a> {
    session: &'a mut Session,
    settings: &'a Settings,
}

impl Exchange<'_> {
    async fn receive(&mut self) -> Result<(u32, Bytes), ConnectError> {
        loop {
            let message = self.session.receive().await;
            let BackendMessage { tag, body } =
                message.map_err(|fault| fault.during_startup(&self.settings.endpoint()))?;
            match tag {
                AUTHENTICATION_TAG => {
                    let (code, _) =
                        body.split_first_chunk().ok_or_else(|| self.protocol("a short authentication message"))?;
                    return Ok((u32::from_be_bytes(*code), body.slice(4..)));
                }
                ERROR_RESPONSE_TAG => {
                    let (user, database) = (self.settings.user(), self.settings.database());
                    let server = ServerError::from_fields(&body);
                    return Err(ConnectError::from_server(server, self.settings.endpoint(), user, database));
                }
                NOTICE_RESPONSE_TAG => {}
                tag => return Err(self.protocol(&format!("message {tag:#04x} during authentication"))),
            }
        }
    }

    async fn send(
        &mut self,
        encode: impl FnOnce(&mut bytes::BytesMut) -> std::io::Result<()>,
    ) -> Result<(), ConnectError> {
        self.session.send(encode).await.map_err(|fault| fault.during_startup(&self.settings.endpoint()))
    }

    fn password(&self) -> Result<Password, ConnectError> {
        self.settings.password().cloned().ok_or_else(|| ConnectError::PasswordMissing {
            endpoint: self.settings.endpoint(),
            user: self.settings.user().to_owned(),
        })
    }

    async fn clear_text(&mut self) -> Result<(), ConnectError> {
        if !self.session.socket().is_tls() && !self.session.socket().is_unix() {
            let remedy = "the server wants the password in clear text over an unencrypted connection: \
                          set sslmode=require, or scram-sha-256 in pg_hba.conf";
            return Err(self.failed(remedy));
        }
        let password = self.password()?;
        self.send(|out| frontend::password_message(password.expose().as_bytes(), out)).await
    }

    async fn md5(&mut self, salt: &[u8]) -> Result<(), ConnectError> {
        let salt = <[u8; 4]>::try_from(salt).map_err(|_| self.protocol("a salt that is not four bytes"))?;
        let password = self.password()?;
        let answer = md5_hash(self.settings.user().as_bytes(), password.expose().as_bytes(), salt);
        self.send(|out| frontend::password_message(answer.as_bytes(), out)).await
    }

    async fn scram(&mut self, mechanisms: &[u8]) -> Result<(), ConnectError> {
        let offered = |name: &str| mechanisms.split(|byte| *byte == 0).any(|offer| offer == name.as_bytes());
        if !offered(sasl::SCRAM_SHA_256) && !offered(sasl::SCRAM_SHA_256_PLUS) {
            return Err(self.unsupported("SASL mechanism"));
        }
        let wanted = self.settings.channel_binding() != ChannelBinding::Disable;
        let hash = self.session.socket().channel_binding().filter(|_| wanted);
        let (mechanism, binding) = match hash {
            Some(hash) if offered(sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
            }
            // Says that we could have bound: a server that could as well knows that somebody removed its offer.
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        if mechanism != sasl::SCRAM_SHA_256_PLUS {
            self.without_channel_binding()?;
        }
        let password = self.password()?;
        let mut scram = ScramSha256::new(password.expose().as_bytes(), binding);
        self.send(|out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
        let challenge = self.expect(code::SASL_CONTINUE).await?;
        scram.update(&challenge).map_err(|error| self.failed_exchange(&error))?;
        self.send(|out| frontend::sasl_response(scram.message(), out)).await?;
        // The server proves that it knows the password, too: without this a stranger could just say yes.
        let signature = self.expect(code::SASL_FINAL).await?;
        scram.finish(&signature).map_err(|error| self.failed_exchange(&error))
    }

    async fn expect(&mut self, wanted: u32) -> Result<Bytes, ConnectError> {
        match self.receive().await? {
            (code, body) if code == wanted => Ok(body),
            (code, _) => Err(self.protocol(&format!("authentication message {code} within SCRAM"))),
        }
    }

    fn without_channel_binding(&self) -> Result<(), ConnectError> {
        match self.settings.channel_binding() {
            ChannelBinding::Require => Err(ConnectError::without_channel_binding(self.settings.endpoint())),
            ChannelBinding::Disable | ChannelBinding::Prefer => Ok(()),
        }
    }

    fn unsupported(&self, what: &str) -> ConnectError {
        self.failed(&format!("{what} is not supported: set scram-sha-256 in pg_hba.conf for this role"))
    }

    fn failed(&self, reason: &str) -> ConnectError {
        ConnectError::Authentication { endpoint: self.settings.endpoint(), reason: reason.to_owned() }
    }

    fn failed_exchange(&self, error: &std::io::Error) -> ConnectError {
        ConnectError::failed_exchange(self.settings.endpoint(), &error.to_string())
    }

    fn protocol(&self, what: &str) -> ConnectError {
        ConnectError::Protocol { endpoint: self.settings.endpoint(), what: what.to_owned() }
    }
}
