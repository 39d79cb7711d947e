//! Rows of the audit log as they are shown, and the filters over them.

use crate::rooms::dto;
use domain::{
    Result,
    audit::{AuditFilter, AuditRow, Head, Outcome, Verification},
    clock::Timestamp,
    page::PageRequest,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an action ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Outcome")]
pub(super) enum OutcomeWord {
    /// It was done.
    Success,
    /// It was not allowed.
    Refused,
    /// It was tried and went wrong.
    Failed,
}

impl From<OutcomeWord> for Outcome {
    fn from(word: OutcomeWord) -> Self {
        match word {
            OutcomeWord::Success => Self::Success,
            OutcomeWord::Refused => Self::Refused,
            OutcomeWord::Failed => Self::Failed,
        }
    }
}

/// Filters of the audit log.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct AuditListQuery {
    /// Exactly this actor, such as `user:alice`.
    actor: Option<String>,
    /// Exactly this action, such as `server.create`, or every action of a noun, such as `server.`.
    action: Option<String>,
    /// Exactly this target, such as `server:7`.
    target: Option<String>,
    /// This outcome.
    outcome: Option<OutcomeWord>,
    /// Not before this moment.
    from: Option<Timestamp>,
    /// Before this moment.
    to: Option<Timestamp>,
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "dto::limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

impl AuditListQuery {
    /// The domain's words for it.
    pub(super) fn parse(self) -> Result<(AuditFilter, PageRequest)> {
        let page = PageRequest::parse(self.limit, self.cursor.as_deref(), "-seq")?;
        let Self { actor, action, target, outcome, from, to, .. } = self;
        Ok((AuditFilter { actor, action, target, outcome: outcome.map(Into::into), from, to }, page))
    }
}

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ExportFormat {
    /// One JSON document a line.
    Jsonl,
    /// Comma-separated values.
    Csv,
}

/// What is exported, and how.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ExportQuery {
    /// `jsonl` if left out.
    format: Option<ExportFormat>,
    /// Exactly this actor, such as `user:alice`.
    actor: Option<String>,
    /// Exactly this action, such as `server.create`, or every action of a noun, such as `server.`.
    action: Option<String>,
    /// Exactly this target, such as `server:7`.
    target: Option<String>,
    /// This outcome.
    outcome: Option<OutcomeWord>,
    /// Not before this moment.
    from: Option<Timestamp>,
    /// Before this moment.
    to: Option<Timestamp>,
}

impl ExportQuery {
    /// The domain's words for it.
    pub(super) fn parse(self) -> (ExportFormat, AuditFilter) {
        let Self { format, actor, action, target, outcome, from, to } = self;
        let filter = AuditFilter { actor, action, target, outcome: outcome.map(Into::into), from, to };
        (format.unwrap_or(ExportFormat::Jsonl), filter)
    }
}

/// A row of the audit log.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditRow")]
pub(super) struct AuditRowView {
    /// 1 for the first row ever, without gaps.
    pub seq: i64,
    /// When it was decided.
    pub created_at: Timestamp,
    /// Who.
    pub actor: String,
    /// The person for whom the actor acted, where that is somebody else.
    pub on_behalf_of: Option<String>,
    /// What.
    pub action: String,
    /// To what.
    pub target: Option<String>,
    /// How it ended.
    pub outcome: &'static str,
    /// The thing as it was before.
    #[schemars(schema_with = "anything")]
    pub before: Option<serde_json::Value>,
    /// The thing as it is after.
    #[schemars(schema_with = "anything")]
    pub after: Option<serde_json::Value>,
    /// Why, or what else is worth knowing.
    pub message: Option<String>,
    /// The request that asked for it.
    pub request_id: Option<String>,
    /// The seal over this row and the one before.
    pub hash: String,
}

fn anything(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": ["object", "null"] })
}

impl From<AuditRow> for AuditRowView {
    fn from(row: AuditRow) -> Self {
        let AuditRow { seq, entry, hash } = row;
        Self {
            seq,
            created_at: entry.created_at,
            actor: entry.actor,
            on_behalf_of: entry.on_behalf_of,
            action: entry.action,
            target: entry.target,
            outcome: entry.outcome.as_str(),
            before: entry.before,
            after: entry.after,
            message: entry.message,
            request_id: entry.request_id,
            hash,
        }
    }
}

/// The last row of the chain.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditHead")]
pub(super) struct HeadView {
    /// Its number; 0 while there is none.
    seq: i64,
    /// Its seal.
    hash: String,
}

impl From<Head> for HeadView {
    fn from(head: Head) -> Self {
        Self { seq: head.seq, hash: head.hash }
    }
}

/// What a check of the chain found.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Verification")]
pub(super) struct VerificationView {
    /// Whether every row is as it was written.
    valid: bool,
    /// How many rows were checked.
    checked: i64,
    /// The head of the chain as the database says.
    head: HeadView,
    /// The first row that is not right.
    broken_at: Option<i64>,
    /// What is wrong with it.
    reason: Option<String>,
}

impl From<Verification> for VerificationView {
    fn from(found: Verification) -> Self {
        let Verification { valid, checked, head, broken_at, reason } = found;
        Self { valid, checked, head: head.into(), broken_at, reason }
    }
}
