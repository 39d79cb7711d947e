//! Who asks: tokens and logins, presented where a registry asks for them, and kept for as long as they are good.

use crate::{
    address::Place,
    challenge::Challenge,
    fault::Fault,
    kept::Kept,
    wire::{self, Wire},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::containers::{Login, Logins};
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{HeaderMap, HeaderValue},
};
use serde::Deserialize;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The longest answer that has a token.
const LONGEST_ANSWER: usize = 64 * 1024;
/// How many repositories' tokens are kept.
const MOST_KEPT: usize = 1024;
/// How long a token is good if it does not say (Docker's specification of tokens).
const DEFAULT_LIFE: u64 = 60;
/// The longest that one is kept, whatever it says.
const LONGEST_LIFE: u64 = 60 * 60;
/// How long before its end it is not used any more, so that it does not end on its way.
const MARGIN: Duration = Duration::from_secs(10);
/// How long it is remembered that a registry takes a login itself.
const BASIC_LIFE: Duration = Duration::from_mins(5);

/// Asks registries as whoever may.
pub(crate) struct Signed {
    wire: Wire,
    logins: Logins,
    /// The value of `Authorization`, by registry and repository.
    held: Mutex<Kept<HeaderValue>>,
}

/// What is answered where tokens are handed out. It must not be printed.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<serde_json::Value>,
}

impl Signed {
    pub(crate) fn new(wire: Wire, logins: Logins) -> Self {
        let logins = logins.into_iter().map(|(registry, login)| (registry.to_ascii_lowercase(), login)).collect();
        Self { wire, logins, held: Mutex::new(Kept::new(MOST_KEPT)) }
    }

    /// Whether there is a login for this registry.
    pub(crate) fn has_login(&self, place: &Place) -> bool {
        self.logins.contains_key(place.registry())
    }

    /// Asks a registry, and again with a token or login if it wants one.
    ///
    /// # Errors
    /// [`Fault`], if there is no answer, or no way to be known to the registry.
    pub(crate) async fn ask(
        &self,
        place: &Place,
        method: Method,
        url: Url,
        accept: Option<&'static str>,
    ) -> Result<Response, Fault> {
        let name = place.whole_repository();
        let held = self.with_held(|held| held.get(&name, Instant::now()));
        let response = self.wire.send(method.clone(), url.clone(), accept, held).await?;
        // Where blobs lie, another host may ask for somebody it knows; it must not get to choose where our login goes.
        if response.status() != StatusCode::UNAUTHORIZED || !place.is_origin_of(response.url()) {
            return Ok(response);
        }
        // Nothing was held, or it has ended before its time.
        let (key, life) = self.sign_in(place, response.headers()).await?;
        let response = self.wire.send(method, url, accept, Some(key.clone())).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            self.with_held(|held| held.keep(name, key, Instant::now(), life));
        }
        Ok(response)
    }

    async fn sign_in(&self, place: &Place, headers: &HeaderMap) -> Result<(HeaderValue, Duration), Fault> {
        let login = self.logins.get(place.registry());
        match Challenge::read(headers) {
            Some(Challenge::Bearer { realm, service }) => self.token(place, realm, service.as_deref(), login).await,
            Some(Challenge::Basic) => {
                let login = login.ok_or(Fault::Missing)?;
                Ok((basic(login)?, BASIC_LIFE))
            }
            None => Err(Fault::Odd("it wants to know who asks, and does not say how".to_owned())),
        }
    }

    async fn token(
        &self,
        place: &Place,
        mut realm: Url,
        service: Option<&str>,
        login: Option<&Login>,
    ) -> Result<(HeaderValue, Duration), Fault> {
        if realm.scheme() != "https" && !(realm.scheme() == "http" && place.is_plain()) {
            return Err(Fault::Odd("its tokens are handed out without encryption".to_owned()));
        }
        if login.is_some() && realm.scheme() == "http" && !place.is_at_host(&realm) {
            let sentence = "its tokens are handed out by another host without encryption, which does not get the login";
            return Err(Fault::Odd(sentence.to_owned()));
        }
        realm.query_pairs_mut().extend_pairs(service.map(|service| ("service", service)));
        realm.query_pairs_mut().append_pair("scope", &format!("repository:{}:pull", place.repository()));
        let key = login.map(basic).transpose()?;
        let response = self.wire.send(Method::GET, realm, None, key).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Fault::Odd("where it hands out tokens is nothing".to_owned())),
            status => return Err(Fault::answered(status)),
        }
        read_token(&wire::body(response, LONGEST_ANSWER).await?)
    }

    fn with_held<T>(&self, f: impl FnOnce(&mut Kept<HeaderValue>) -> T) -> T {
        f(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn read_token(body: &[u8]) -> Result<(HeaderValue, Duration), Fault> {
    let odd = || Fault::Odd("where it hands out tokens, none was given".to_owned());
    // What is wrong with the answer is not told, because that could quote from it.
    let answer: TokenAnswer = serde_json::from_slice(body).ok().ok_or_else(odd)?;
    let tokens = [answer.token, answer.access_token];
    let token = tokens.into_iter().flatten().find(|token| !token.is_empty()).ok_or_else(odd)?;
    let life = answer.expires_in.and_then(|seconds| seconds.as_u64()).unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
    let life = Duration::from_secs(life).saturating_sub(MARGIN);
    Ok((secret(&format!("Bearer {token}")).ok_or_else(odd)?, life))
}

fn basic(login: &Login) -> Result<HeaderValue, Fault> {
    let pair = STANDARD.encode(format!("{}:{}", login.username, login.password));
    secret(&format!("Basic {pair}")).ok_or_else(|| Fault::Odd("the login cannot be sent".to_owned()))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
