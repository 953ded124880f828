//! Signatures as Standard Webhooks 1.0 says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::digest::InvalidLength;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// The secrets that sign, as prepared keys.
pub(super) struct Signer(Vec<Hmac<Sha256>>);

impl Signer {
    /// A signer with these secrets.
    ///
    /// # Errors
    /// None that is known: HMAC takes keys of any length.
    pub(super) fn new(secrets: &[Vec<u8>]) -> Result<Self, InvalidLength> {
        let keys = secrets.iter().map(|secret| Hmac::new_from_slice(secret));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The header `webhook-signature`: `v1,` and the base64 of an HMAC-SHA256 for each secret,
    /// separated by spaces. `timestamp` is in seconds since 1970.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let head = format!("{id}.{timestamp}.");
        let signatures = self.0.iter().map(|key| {
            let signed = key.clone().chain_update(&head).chain_update(body);
            format!("v1,{}", STANDARD.encode(signed.finalize().into_bytes()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(secrets: &[&str]) -> Signer {
        let secrets: Vec<_> = secrets
            .iter()
            .map(|secret| STANDARD.decode(secret).unwrap())
            .collect();
        Signer::new(&secrets).unwrap()
    }

    const FIRST: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SECOND: &str = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    /// Of the tests of the Standard Webhooks libraries for Go and Rust.
    #[test]
    fn the_published_signatures() {
        assert_eq!(
            signer(&[FIRST]).sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(
            signer(&[SECOND]).sign(
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[test]
    fn each_secret_signs() {
        let alone = |secret| signer(&[secret]).sign("id", 1, "{}");
        assert_eq!(
            signer(&[FIRST, SECOND]).sign("id", 1, "{}"),
            format!("{} {}", alone(FIRST), alone(SECOND))
        );
        assert_ne!(alone(FIRST), alone(SECOND));
    }
}
