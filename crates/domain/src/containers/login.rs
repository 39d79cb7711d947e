use super::name::HUB;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A user of a registry. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Who.
    pub username: String,
    /// The password, or a token that goes for one.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Users of registries by the registry's host, and port if it has one: `docker.io`, `registry.example.com:5000`.
pub type Logins = BTreeMap<String, Login>;

/// The file in which `docker login` keeps what it was told, `config.json`.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// Either both in one word, or each by itself.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Reads logins in the form in which `docker login` writes them: `{"auths": {"ghcr.io": {"auth": "…"}}}`, where `auth` is
/// the Base64 form of `USER:PASSWORD`; `username` and `password` may stand there instead.
///
/// # Errors
/// A sentence that shows nothing secret.
pub fn read_logins(text: &str) -> Result<Logins, String> {
    // What the parser says could quote a password.
    let file: File = serde_json::from_str(text)
        .map_err(|error| format!("line {} is not what `docker login` writes", error.line()))?;
    let count = file.auths.len();
    let mut logins = Logins::new();
    for (place, entry) in file.auths {
        // What `docker login` keeps beside a login, or in the store of the desktop, is none.
        if let (Some(registry), Some(login)) = (registry_of(&place), entry.login(&place)?) {
            logins.insert(registry, login);
        }
    }
    if logins.is_empty() && count > 0 {
        return Err("there are no passwords in it: those in the store of a desktop cannot be read from here; write \
                    username and password"
            .to_owned());
    }
    Ok(logins)
}

impl Entry {
    /// `None`, if there is no password.
    fn login(self, place: &str) -> Result<Option<Login>, String> {
        if !self.username.is_empty() && !self.password.is_empty() {
            return Ok(Some(Login { username: self.username, password: self.password }));
        }
        if self.auth.is_empty() {
            return Ok(None);
        }
        let decoded = BASE64_STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let words = decoded.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
        let (username, password) = words.ok_or_else(|| format!("auth of {place} is not USER:PASSWORD in Base64"))?;
        Ok((!password.is_empty()).then(|| Login { username: username.to_owned(), password: password.to_owned() }))
    }
}

/// The registry that is meant by an address as `docker login` writes it, such as `https://index.docker.io/v1/`. `None`
/// for what it keeps beside that: `…/v1/refresh-token` is no place to log in at.
fn registry_of(place: &str) -> Option<String> {
    let place = place.split_once("://").map_or(place, |(_, rest)| rest).to_ascii_lowercase();
    let (host, path) = place.split_once('/').unwrap_or((&place, ""));
    match (host, path.trim_end_matches('/')) {
        ("docker.io" | "index.docker.io" | "registry-1.docker.io", "" | "v1") => Some(HUB.to_owned()),
        ("docker.io" | "index.docker.io" | "registry-1.docker.io", _) => None,
        _ => Some(host.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(username: &str, password: &str) -> Login {
        Login { username: username.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn what_docker_login_writes_is_read() {
        let text = r#"{
            "auths": {
                "https://index.docker.io/v1/": { "auth": "YW5uOnJlZy1zM2NyZXQtNzc=" },
                "https://index.docker.io/v1/refresh-token": { "auth": "YW5uOnJlZnJlc2g=" },
                "ghcr.io": {}, "azurecr.example": { "auth": "MDA6", "identitytoken": "x" },
                "Registry.example.com:5000": { "username": "robot", "password": "a:b" }
            },
            "HttpHeaders": { "User-Agent": "x" }
        }"#;
        let expected = [
            ("docker.io".to_owned(), login("ann", "reg-s3cret-77")),
            ("registry.example.com:5000".to_owned(), login("robot", "a:b")),
        ];
        assert_eq!(read_logins(text), Ok(expected.into()));
        assert_eq!(read_logins("{}"), Ok(Logins::new()));
    }

    #[test]
    fn what_cannot_be_read_is_told_without_what_is_secret() {
        let check = |text: &str, expected: &str| {
            let reason = read_logins(text).unwrap_err();
            assert!(reason.contains(expected) && !reason.contains("s3cret"), "{reason}");
        };
        check("reg-s3cret-77", "line 1");
        check("{\n\"auths\": { \"x\": \"reg-s3cret-77\" } }", "line 2");
        check(r#"{"auths": {"ghcr.io": {}}, "credsStore": "desktop"}"#, "no passwords in it");
        check(r#"{"auths": {"ghcr.io": {"auth": "s3cret"}}}"#, "auth of ghcr.io");
        check(r#"{"auths": {"ghcr.io": {"auth": "cmVnLXMzY3JldC03Nw=="}}}"#, "auth of ghcr.io");
    }

    #[test]
    fn no_password_is_printed() {
        let text = format!("{:?}", Logins::from([("docker.io".to_owned(), login("ann", "reg-s3cret-77"))]));
        assert!(text.contains("ann") && !text.contains("s3cret"), "{text}");
    }
}
