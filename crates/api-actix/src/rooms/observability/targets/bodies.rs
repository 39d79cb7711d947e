//! Targets as they are sent.

use super::super::words::words;
use crate::{extract::patch, rooms::dto};
use domain::{
    Error, Result,
    error::Checks,
    observability::alerts::{MAX_URL, MOST_RECIPIENTS, MailTls, NewTarget, TargetDraft, TargetKind, TargetPatch},
    patch::Patch,
    text::Name,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

words! {
    kind: TargetKind, "string";
    tls: MailTls, ["string", "null"];
}

fn url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "maxLength": MAX_URL })
}

fn word(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "minLength": 1, "maxLength": 255 })
}

fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["integer", "null"], "format": "int64", "minimum": 1, "maximum": 65_535 })
}

fn recipients(_: &mut SchemaGenerator) -> Schema {
    let item = json_schema!({ "type": "string", "minLength": 3, "maxLength": 255 });
    json_schema!({ "type": ["array", "null"], "minItems": 1, "maxItems": MOST_RECIPIENTS, "items": item })
}

fn parse_port(port: i64) -> Result<u16, String> {
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| "must be from 1 to 65535".to_owned())
}

/// Somebody who is to be told of alerts. Which members go together depends on `kind`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AlertTargetCreate")]
pub(super) struct TargetBody {
    /// Its name, unique among targets.
    #[schemars(schema_with = "dto::name")]
    name: String,
    /// Whether it is told anything; it is if left out.
    enabled: Option<bool>,
    /// `webhook`: a signed JSON document. `slack`: a JSON document with a `text`. `email`: a mail.
    #[schemars(schema_with = "kind")]
    kind: TargetKind,
    /// Where a webhook or Slack message is posted.
    #[serde(default)]
    #[schemars(schema_with = "url")]
    url: Option<String>,
    /// The mail server.
    #[serde(default)]
    #[schemars(schema_with = "word")]
    host: Option<String>,
    /// Its port; 465, 587 or 25 if left out, as `tls` is.
    #[serde(default)]
    #[schemars(schema_with = "port")]
    port: Option<i64>,
    /// How it is spoken to; `tls` if left out.
    #[serde(default)]
    #[schemars(schema_with = "tls")]
    tls: Option<MailTls>,
    /// Who signs in there.
    #[serde(default)]
    #[schemars(schema_with = "word")]
    user: Option<String>,
    /// With which password.
    #[serde(default)]
    #[schemars(schema_with = "word")]
    password: Option<String>,
    /// Who writes.
    #[serde(default)]
    #[schemars(schema_with = "word")]
    from: Option<String>,
    /// To whom.
    #[serde(default)]
    #[schemars(schema_with = "recipients")]
    to: Option<Vec<String>>,
}

impl TargetBody {
    pub(super) fn parse(self) -> Result<NewTarget> {
        let mut checks = Checks::default();
        let name = checks.take("name", Name::parse(self.name));
        let draft = TargetDraft {
            kind: Some(self.kind),
            url: self.url,
            host: self.host,
            port: self.port.and_then(|port| checks.take("port", parse_port(port))),
            tls: self.tls,
            user: self.user,
            password: self.password,
            from: self.from,
            to: self.to,
        };
        let parsed = match draft.parse() {
            Ok(parsed) => Some(parsed),
            Err(Error::Invalid { errors }) => {
                for error in errors {
                    checks.note(&error.field, error.reason);
                }
                None
            }
            Err(other) => return Err(other),
        };
        checks.finish()?;
        let (name, (spec, secret)) =
            name.zip(parsed).ok_or_else(|| Error::internal("a checked target is incomplete"))?;
        Ok(NewTarget { name, enabled: self.enabled.unwrap_or(true), spec, secret })
    }
}

/// A merge patch of an alert target.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AlertTargetPatch")]
pub(super) struct TargetPatchBody {
    /// Another name.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::name")]
    name: Patch<String>,
    /// Whether it is told anything.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "bool")]
    enabled: Patch<bool>,
    /// Another URL.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "url")]
    url: Patch<String>,
    /// Another mail server.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "word")]
    host: Patch<String>,
    /// Another port.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "port")]
    port: Patch<i64>,
    /// Another way to speak to it.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "tls")]
    tls: Patch<MailTls>,
    /// Another user.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "word")]
    user: Patch<String>,
    /// Another password.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "word")]
    password: Patch<String>,
    /// Another writer.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "word")]
    from: Patch<String>,
    /// Others to write to.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "recipients")]
    to: Patch<Vec<String>>,
}

impl TargetPatchBody {
    pub(super) fn parse(self) -> Result<TargetPatch> {
        let mut checks = Checks::default();
        let patch = TargetPatch {
            name: dto::replaced_name(&mut checks, self.name),
            enabled: dto::replaced(&mut checks, "enabled", self.enabled, Ok),
            url: self.url,
            host: self.host,
            port: dto::patched(&mut checks, "port", self.port, parse_port),
            tls: self.tls,
            user: self.user,
            password: self.password,
            from: self.from,
            to: self.to,
        };
        checks.finish()?;
        Ok(patch)
    }
}
