//! Who is calling, and what they may do.

use super::HttpState;
use super::problem::Problem;
use crate::config::auth::{Bound, Scope};
use crate::topics::Holder;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::{FromRequest, HttpRequest, dev, web};
use sha2::{Digest, Sha256};
use std::future::{Ready, ready};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Header that takes a bare key, for clients that cannot set `Authorization`.
const API_KEY_HEADER: &str = "x-api-key";

/// The sender of a request.
pub struct Caller {
    /// The producer of the events it sends.
    pub producer: Arc<str>,
    /// What it may do; `None` without keys in the settings, where every caller may do everything.
    scopes: Option<Vec<Scope>>,
    /// The one key of streams that it may collect.
    bound_to: Option<Bound>,
    /// The digest of the key that it has presented.
    digest: Option<[u8; 32]>,
}

impl Caller {
    /// Refuses a caller whose API key may not collect the messages of this key of a stream.
    ///
    /// # Errors
    /// 403 with what the API key is bound to.
    pub fn require_place(&self, stream: &str, key: &str) -> Result<(), Problem> {
        self.require(Scope::Collect)?;
        self.require_bound(stream, key)
    }

    /// Refuses a caller whose API key is bound to another key of a stream.
    ///
    /// # Errors
    /// 403 with what the API key is bound to.
    pub fn require_bound(&self, stream: &str, key: &str) -> Result<(), Problem> {
        match &self.bound_to {
            Some(bound) if bound.stream != stream || bound.key != key => {
                Err(Problem::forbidden(format!(
                    "the key {:?} is bound to {} of the stream {}",
                    self.producer, bound.key, bound.stream
                )))
            }
            _ => Ok(()),
        }
    }

    /// Whose streams of events it opens.
    pub fn holder(&self) -> Holder {
        Holder {
            name: Arc::clone(&self.producer),
            digest: self.digest,
        }
    }

    /// Refuses a caller that lacks the scope.
    ///
    /// # Errors
    /// 403, naming the scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        match &self.scopes {
            Some(scopes) if !scopes.contains(&scope) && !scopes.contains(&Scope::Admin) => {
                Err(Problem::forbidden(format!(
                    "the key {:?} lacks the scope {:?}",
                    self.producer,
                    scope.as_str()
                )))
            }
            _ => Ok(()),
        }
    }

    fn identify(state: &HttpState, headers: &HeaderMap) -> Result<Self, Problem> {
        let settings = state.settings.get();
        if settings.auth.keys.is_empty() {
            return Ok(Self {
                producer: Arc::clone(&settings.ingest.producer),
                scopes: None,
                bound_to: None,
                digest: None,
            });
        }
        let key = presented(headers).ok_or_else(|| {
            Problem::unauthorized("an API key is needed: Authorization: Bearer KEY")
        })?;
        let digest: [u8; 32] = Sha256::digest(key).into();
        // Every key is compared, and each in constant time: neither the place of a key nor a
        // common beginning of its hash shows in the time it takes.
        let mut found = None;
        for known in &settings.auth.keys {
            let matches = known
                .digest()
                .is_some_and(|known| bool::from(known.ct_eq(&digest)));
            if matches {
                found = Some(known);
            }
        }
        let known = found.ok_or_else(|| Problem::unauthorized("this API key is not known"))?;
        Ok(Self {
            producer: Arc::clone(&known.name),
            scopes: Some(known.scopes.clone()),
            bound_to: known.bound_to(),
            digest: Some(digest),
        })
    }
}

fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(API_KEY_HEADER) {
        return Some(value.as_bytes());
    }
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let Some(state) = request.app_data::<web::Data<HttpState>>() else {
            return ready(Err(Problem::unavailable("the service is starting")));
        };
        let caller = Self::identify(state, request.headers());
        if let Err(problem) = &caller {
            tracing::debug!(path = request.path(), %problem, "caller refused");
        }
        ready(caller)
    }
}
