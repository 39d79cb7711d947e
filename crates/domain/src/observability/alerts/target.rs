//! Who is told of alerts, and how they are reached. What it takes to reach them beyond that is kept apart, and is read by
//! nothing but the sending of messages.

use crate::{
    Result,
    change::Recorded,
    clock::Timestamp,
    error::Checks,
    ids::TargetId,
    patch::Patch,
    text::{self, Name},
    words::words,
};
use serde::{Deserialize, Serialize};

/// The longest URL, in characters.
pub const MAX_URL: usize = 2048;
/// The most addresses of one e-mail target.
pub const MOST_RECIPIENTS: usize = 16;
/// The longest user name, password, host name or address, in characters.
const MAX_WORD: usize = 255;

words! {
    /// How a target is reached.
    TargetKind {
        /// By a signed JSON document over HTTP.
        Webhook = "webhook",
        /// By a JSON document with a text, as Slack and others take it.
        Slack = "slack",
        /// By e-mail.
        Email = "email",
    }
}

words! {
    /// How a mail server is spoken to.
    MailTls {
        /// In TLS from the beginning.
        Tls = "tls",
        /// In TLS once that was agreed on; not at all, if it is not.
        StartTls = "starttls",
        /// In plain text.
        None = "none",
    }
}

/// How a target is reached, as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TargetSpec {
    /// At a URL, of which this is the beginning; the rest of it may be a secret.
    Webhook {
        /// Such as `https://hooks.example.com`.
        origin: String,
    },
    /// The same, for a text.
    Slack {
        /// Such as `https://hooks.example.com`.
        origin: String,
    },
    /// By a mail server.
    Email {
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
        /// How it is spoken to.
        tls: MailTls,
        /// Who signs in there.
        user: Option<String>,
        /// Who writes.
        from: String,
        /// To whom.
        to: Vec<String>,
    },
}

/// What it takes to reach a target. Never printed by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSecret {
    /// The whole URL.
    pub url: Option<String>,
    /// What messages are signed with.
    pub key: Option<String>,
    /// The password of the one who signs in.
    pub password: Option<String>,
}

impl std::fmt::Debug for TargetSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TargetSecret(…)")
    }
}

/// A target as it is written down, whether it makes sense or not.
#[derive(Clone, Default)]
pub struct TargetDraft {
    /// How it is reached.
    pub kind: Option<TargetKind>,
    /// Where.
    pub url: Option<String>,
    /// By which mail server.
    pub host: Option<String>,
    /// At which port.
    pub port: Option<u16>,
    /// How that is spoken to.
    pub tls: Option<MailTls>,
    /// Who signs in there.
    pub user: Option<String>,
    /// With which password.
    pub password: Option<String>,
    /// Who writes.
    pub from: Option<String>,
    /// To whom.
    pub to: Option<Vec<String>>,
}

impl TargetDraft {
    /// What reaches the target, and what of it is a secret, but for the key that messages are signed with.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with each member that is missing, makes no sense, or does not belong to the kind.
    pub fn parse(self) -> Result<(TargetSpec, TargetSecret)> {
        let mut checks = Checks::default();
        let parsed = match self.kind {
            None => checks.take("kind", Err("must be one of webhook, slack, email".to_owned())),
            Some(TargetKind::Email) => self.mail(&mut checks),
            Some(kind) => self.hook(kind, &mut checks),
        };
        checks.finish()?;
        parsed.ok_or_else(|| crate::Error::internal("a checked target is incomplete"))
    }

    fn hook(self, kind: TargetKind, checks: &mut Checks) -> Option<(TargetSpec, TargetSecret)> {
        let foreign = [
            ("host", self.host.is_some()),
            ("port", self.port.is_some()),
            ("tls", self.tls.is_some()),
            ("user", self.user.is_some()),
            ("password", self.password.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
        ];
        for (field, _) in foreign.into_iter().filter(|(_, given)| *given) {
            checks.note(field, format!("does not belong to the kind {kind}"));
        }
        let url = checks.take("url", self.url.ok_or_else(|| "must be given".to_owned()))?;
        let origin = checks.take("url", origin(&url))?;
        let spec =
            if kind == TargetKind::Slack { TargetSpec::Slack { origin } } else { TargetSpec::Webhook { origin } };
        Some((spec, TargetSecret { url: Some(url), ..TargetSecret::default() }))
    }

    fn mail(self, checks: &mut Checks) -> Option<(TargetSpec, TargetSecret)> {
        if self.url.is_some() {
            checks.note("url", "does not belong to the kind email");
        }
        let given = |value: Option<String>| value.ok_or_else(|| "must be given".to_owned()).and_then(word);
        let host = checks.take("host", given(self.host));
        let from = checks.take("from", given(self.from).and_then(address));
        let to = checks.take("to", recipients(self.to.unwrap_or_default()));
        let user = self.user.and_then(|user| checks.take("user", word(user)));
        let password = self.password.and_then(|text| checks.take("password", word(text)));
        if password.is_some() != user.is_some() {
            checks.note("password", "and user go together");
        }
        let tls = self.tls.unwrap_or(MailTls::Tls);
        if password.is_some() && tls == MailTls::None {
            checks.note("tls", "must not be none where there is a password, which anybody could read then");
        }
        let port = self.port.unwrap_or(match tls {
            MailTls::Tls => 465,
            MailTls::StartTls => 587,
            MailTls::None => 25,
        });
        let spec = TargetSpec::Email { host: host?, port, tls, user, from: from?, to: to? };
        Some((spec, TargetSecret { password, ..TargetSecret::default() }))
    }
}

fn word(text: String) -> Result<String, String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    text::line(text, MAX_WORD)
}

/// Looks whether it may be an address at all; a mail server knows the rest.
fn address(text: String) -> Result<String, String> {
    let good = text.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if good && !text.contains(char::is_whitespace) && text.matches('@').count() == 1 {
        Ok(text)
    } else {
        Err("must be an address such as ops@example.com".to_owned())
    }
}

fn recipients(to: Vec<String>) -> Result<Vec<String>, String> {
    if to.is_empty() || to.len() > MOST_RECIPIENTS {
        return Err(format!("must have from 1 to {MOST_RECIPIENTS} addresses"));
    }
    to.into_iter().map(|one| word(one).and_then(address)).collect()
}

/// The part of a URL that is no secret: scheme, host and port.
fn origin(url: &str) -> Result<String, String> {
    let wrong = || "must be a URL such as https://hooks.example.com/starlink, without a user in it".to_owned();
    if url.len() > MAX_URL || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong());
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") || authority.is_empty() || authority.contains('@') {
        return Err(wrong());
    }
    Ok(format!("{scheme}://{}", authority.to_ascii_lowercase()))
}

/// Somebody who is told of alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its id.
    pub id: TargetId,
    /// Its name, unique among targets.
    pub name: Name,
    /// Whether it is told anything.
    pub enabled: bool,
    /// How it is reached.
    #[serde(flatten)]
    pub spec: TargetSpec,
    /// Counts changes; the `ETag`.
    pub revision: i64,
    /// Who made it, as audit rows name them.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Recorded for Target {
    const KIND: &'static str = "alert_target";
    fn id(&self) -> i64 {
        self.id.0
    }
}

/// A target to be made.
#[derive(Debug, Clone)]
pub struct NewTarget {
    /// Its name.
    pub name: Name,
    /// Whether it is told anything.
    pub enabled: bool,
    /// How it is reached.
    pub spec: TargetSpec,
    /// What else that takes.
    pub secret: TargetSecret,
}

impl NewTarget {
    /// The target that this becomes under an id.
    #[must_use]
    pub fn into_target(self, id: TargetId, created_by: String, now: Timestamp) -> Target {
        let Self { name, enabled, spec, .. } = self;
        Target { id, name, enabled, spec, revision: 1, created_by, created_at: now, updated_at: now }
    }
}

/// A merge patch of a target. Its kind stays.
#[derive(Clone, Default)]
pub struct TargetPatch {
    /// Another name.
    pub name: Option<Name>,
    /// Whether it is told anything.
    pub enabled: Option<bool>,
    /// Another URL.
    pub url: Patch<String>,
    /// Another mail server.
    pub host: Patch<String>,
    /// At another port.
    pub port: Patch<u16>,
    /// Spoken to in another way.
    pub tls: Patch<MailTls>,
    /// Another user.
    pub user: Patch<String>,
    /// Another password.
    pub password: Patch<String>,
    /// Another writer.
    pub from: Patch<String>,
    /// Others to write to.
    pub to: Patch<Vec<String>>,
}

impl Target {
    /// This target and what it takes to reach it with a patch applied, at its next revision.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the members that make no target. Whoever names another mail server has to give the
    /// password again, so that nobody has it sent elsewhere who does not know it.
    pub fn patched(&self, secret: &TargetSecret, patch: TargetPatch, now: Timestamp) -> Result<(Self, TargetSecret)> {
        let mut draft = TargetDraft { url: secret.url.clone(), ..TargetDraft::default() };
        let mut moved = false;
        match &self.spec {
            TargetSpec::Webhook { .. } => draft.kind = Some(TargetKind::Webhook),
            TargetSpec::Slack { .. } => draft.kind = Some(TargetKind::Slack),
            TargetSpec::Email { host, port, tls, user, from, to } => {
                moved = patch.host != Patch::Keep || patch.port != Patch::Keep || patch.tls != Patch::Keep;
                draft.kind = Some(TargetKind::Email);
                draft.host = Some(host.clone());
                (draft.port, draft.tls, draft.user) = (Some(*port), Some(*tls), user.clone());
                (draft.from, draft.to) = (Some(from.clone()), Some(to.clone()));
            }
        }
        let known = secret.password.clone().filter(|_| !moved);
        draft = TargetDraft {
            kind: draft.kind,
            url: patch.url.apply(draft.url),
            host: patch.host.apply(draft.host),
            port: patch.port.apply(draft.port),
            tls: patch.tls.apply(draft.tls),
            user: patch.user.apply(draft.user),
            password: patch.password.apply(known),
            from: patch.from.apply(draft.from),
            to: patch.to.apply(draft.to),
        };
        let (spec, reach) = draft.parse()?;
        let after = Self {
            name: patch.name.unwrap_or_else(|| self.name.clone()),
            enabled: patch.enabled.unwrap_or(self.enabled),
            spec,
            revision: self.revision + 1,
            updated_at: now,
            ..self.clone()
        };
        Ok((after, TargetSecret { key: secret.key.clone(), ..reach }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn check(draft: TargetDraft, wrong: &[&str]) {
        let fields = match draft.parse() {
            Ok(_) => Vec::new(),
            Err(Error::Invalid { errors }) => errors.into_iter().map(|error| error.field).collect(),
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(fields, wrong);
    }

    fn hook(url: &str) -> TargetDraft {
        TargetDraft { kind: Some(TargetKind::Webhook), url: Some(url.to_owned()), ..TargetDraft::default() }
    }

    fn mail() -> TargetDraft {
        TargetDraft {
            kind: Some(TargetKind::Email),
            host: Some("mail.example.com".to_owned()),
            from: Some("starlink@example.com".to_owned()),
            to: Some(vec!["ops@example.com".to_owned()]),
            ..TargetDraft::default()
        }
    }

    #[test]
    fn of_a_url_only_the_origin_is_shown() {
        let (spec, secret) = hook("https://Hooks.example.com:8443/T000/secret?key=1").parse().unwrap();
        assert_eq!(spec, TargetSpec::Webhook { origin: "https://hooks.example.com:8443".to_owned() });
        assert!(!format!("{spec:?} {secret:?}").contains("T000"));
        for wrong in ["", "hooks.example.com", "ftp://a/", "https://", "https://me@a/", "https://a b/", "https:///x"] {
            check(hook(wrong), &["url"]);
        }
    }

    #[test]
    fn targets_say_what_is_wrong_with_them() {
        check(TargetDraft::default(), &["kind"]);
        check(mail(), &[]);
        check(TargetDraft { to: None, ..mail() }, &["to"]);
        check(TargetDraft { from: Some("ops".to_owned()), ..mail() }, &["from"]);
        check(TargetDraft { url: Some("https://a/".to_owned()), ..mail() }, &["url"]);
        check(TargetDraft { user: Some("me".to_owned()), ..mail() }, &["password"]);
        check(TargetDraft { host: Some("mail".to_owned()), ..hook("https://a/") }, &["host"]);
        let (user, password) = (Some("me".to_owned()), Some("pw".to_owned()));
        check(TargetDraft { tls: Some(MailTls::None), user, password, ..mail() }, &["tls"]);
    }

    #[test]
    fn a_password_goes_to_no_server_that_it_was_not_given_for() {
        let draft = TargetDraft { user: Some("me".to_owned()), password: Some("pw".to_owned()), ..mail() };
        let (spec, secret) = draft.parse().unwrap();
        let new = NewTarget { name: crate::testing::name("ops"), enabled: true, spec, secret: secret.clone() };
        let target = new.into_target(TargetId(1), "user:alice".to_owned(), crate::testing::START);
        let with = |patch| target.patched(&secret, patch, crate::testing::START);
        let host = || Patch::Set("elsewhere.example.com".to_owned());
        assert!(with(TargetPatch { host: host(), ..TargetPatch::default() }).is_err());
        let again = TargetPatch { host: host(), password: Patch::Set("pw".to_owned()), ..TargetPatch::default() };
        assert!(with(again).is_ok());
        let (after, kept) = with(TargetPatch { enabled: Some(false), ..TargetPatch::default() }).unwrap();
        assert_eq!((after.enabled, kept), (false, secret.clone()));
    }
}
