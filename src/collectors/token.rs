//! Tokens of collectors: which answer of which session is asked for, signed.
//!
//! A token is the URL-safe base64, without padding, of the session's number (8 bytes), the answer's number (4 bytes),
//! both big endian, and the first 16 bytes of an HMAC-SHA-256 over both, the stream and the key. So none can be
//! guessed, none is good for another key, and a token of a session that is gone is told from one that never was.

use crate::store::streams::{Place, Ticket};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Bytes of the signature.
const SIGNATURE: usize = 16;

/// Makes tokens and reads them.
#[derive(Clone)]
pub(super) struct Tokens {
    secret: [u8; 32],
}

impl Tokens {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    pub(super) fn write(&self, place: &Place, ticket: Ticket) -> String {
        let mut bytes = content(ticket);
        let signature = self.mac(place, &bytes).finalize().into_bytes();
        bytes.extend(signature.iter().take(SIGNATURE));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The ticket of a token that was made for this place.
    pub(super) fn read(&self, place: &Place, token: &str) -> Option<Ticket> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (content, signature) = bytes.split_last_chunk::<SIGNATURE>()?;
        let (session, n) = content.split_first_chunk::<8>()?;
        let ticket = Ticket {
            session: i64::from_be_bytes(*session),
            n: i32::from_be_bytes(n.try_into().ok()?),
        };
        let mac = self.mac(place, content);
        mac.verify_truncated_left(signature).ok()?;
        Some(ticket)
    }

    fn mac(&self, place: &Place, content: &[u8]) -> Hmac<Sha256> {
        // A key of any length is one; `or` is never needed.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret)
            .unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
        mac.update(b"eclusa stream token");
        mac.update(&place.stream.to_be_bytes());
        mac.update(content);
        // Last, since its length varies.
        mac.update(place.key.as_bytes());
        mac
    }
}

fn content(ticket: Ticket) -> Vec<u8> {
    let mut bytes = ticket.session.to_be_bytes().to_vec();
    bytes.extend(ticket.n.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_place_alone() {
        let place = |stream, key: &str| Place {
            stream,
            key: key.to_owned(),
        };
        let tokens = Tokens::new([7; 32]);
        let ticket = Ticket { session: 5, n: 3 };
        let own = place(1, "00000000");
        let token = tokens.write(&own, ticket);
        assert!(
            token
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        );
        assert_eq!(tokens.read(&own, &token), Some(ticket));
        assert_eq!(tokens.read(&place(1, "00000001"), &token), None);
        assert_eq!(tokens.read(&place(2, "00000000"), &token), None);
        assert_eq!(Tokens::new([8; 32]).read(&own, &token), None);
        for other in [
            "",
            "start",
            "AAAA",
            &token[1..],
            &token.replace(&token[..1], "_"),
        ] {
            assert_eq!(tokens.read(&own, other), None, "{other}");
        }
        // Each bit counts.
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(tokens.read(&own, &URL_SAFE_NO_PAD.encode(changed)), None);
        }
    }
}
