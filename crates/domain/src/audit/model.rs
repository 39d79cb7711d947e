use crate::{change::Recorded, clock::Timestamp, identity::Actor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was not allowed.
    Refused,
    /// It was tried and went wrong.
    Failed,
}

impl Outcome {
    /// The word in rows and filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// Reads [`Outcome::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Success, Self::Refused, Self::Failed].into_iter().find(|outcome| outcome.as_str() == text)
    }
}

/// What is to be recorded about one action; it becomes a row when it is numbered and sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When it was decided.
    pub created_at: Timestamp,
    /// Who: `user:alice`, `token:ci`, `system:startup`, `anonymous`.
    pub actor: String,
    /// The person for whom the actor acted, where that is somebody else.
    pub on_behalf_of: Option<String>,
    /// `noun.verb`, such as `server.create`.
    pub action: String,
    /// `server:7`; absent where nothing particular was acted on.
    pub target: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// The thing as it was before.
    pub before: Option<Value>,
    /// The thing as it is after.
    pub after: Option<Value>,
    /// Why, or what else is worth knowing.
    pub message: Option<String>,
    /// The request that asked for it.
    pub request_id: Option<String>,
}

impl AuditEntry {
    /// A successful `action` of `actor`, without a target so far.
    #[must_use]
    pub fn new(actor: &Actor, action: &str, now: Timestamp) -> Self {
        Self {
            created_at: now,
            actor: actor.label(),
            on_behalf_of: actor.on_behalf_of.clone(),
            action: action.to_owned(),
            target: None,
            outcome: Outcome::Success,
            before: None,
            after: None,
            message: None,
            request_id: actor.request_id.clone(),
        }
    }

    /// An entry whose thing was created: its target is the thing, which is also its state after.
    #[must_use]
    pub fn created<T: Recorded>(self, thing: &T) -> Self {
        Self { target: Some(thing.target()), after: Some(snapshot(thing)), ..self }
    }

    /// An entry whose thing was changed.
    #[must_use]
    pub fn changed<T: Recorded>(self, before: &T, after: &T) -> Self {
        Self { before: Some(snapshot(before)), ..self.created(after) }
    }

    /// An entry whose thing is gone.
    #[must_use]
    pub fn deleted<T: Recorded>(self, thing: &T) -> Self {
        Self { target: Some(thing.target()), before: Some(snapshot(thing)), ..self }
    }

    /// An entry whose thing only went on: of it, nothing is recorded but where it was and where it is.
    #[must_use]
    pub fn moved<T: Recorded>(self, thing: &T, before: Value, after: Value) -> Self {
        Self { target: Some(thing.target()), before: Some(before), after: Some(after), ..self }
    }

    /// An `action` of the same actor, at the same time and in the same request, on something else that goes with it.
    #[must_use]
    pub fn beside(&self, action: &str) -> Self {
        Self {
            action: action.to_owned(),
            target: None,
            outcome: Outcome::Success,
            before: None,
            after: None,
            message: None,
            ..self.clone()
        }
    }

    /// The same entry with a remark.
    #[must_use]
    pub fn because(self, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..self }
    }
}

/// A value as it stands in `before` and `after`. What cannot be written as JSON is recorded as being so.
fn snapshot<T: Serialize>(thing: &T) -> Value {
    serde_json::to_value(thing).unwrap_or_else(|error| Value::String(format!("not representable: {error}")))
}

/// An entry with its number and its seal, as it is read back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditRow {
    /// 1 for the first row ever, without gaps.
    pub seq: i64,
    /// What was recorded.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// The seal over this row and the one before, in hexadecimal.
    pub hash: String,
}

/// One line of an export.
#[derive(Debug, Clone, PartialEq)]
pub enum AuditLine {
    /// A row.
    Row(Box<AuditRow>),
    /// The head of the chain, after the last row.
    Head(Head),
}

/// Which rows are wanted; all that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Exactly this actor.
    pub actor: Option<String>,
    /// Exactly this action, or every action of a noun if it ends in `.`.
    pub action: Option<String>,
    /// Exactly this target.
    pub target: Option<String>,
    /// This outcome.
    pub outcome: Option<Outcome>,
    /// Not before this moment.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub to: Option<Timestamp>,
}

/// The last row of the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its number; 0 while there is none.
    pub seq: i64,
    /// Its seal; empty while there is none.
    pub hash: String,
}

/// Where the chain starts now, after older rows were let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last row that was let go.
    pub head: Head,
    /// When.
    pub created_at: Timestamp,
    /// A keyed hash over both, so that a checkpoint cannot be made up.
    pub mac: String,
}

/// Why a head was noted outside the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    /// It was the head at that moment.
    Head,
    /// The database was replaced by a copy that ends here: earlier marks above it no longer apply.
    Restore,
}

/// A head as it was noted outside the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadMark {
    /// When it was noted.
    pub at: Timestamp,
    /// Why.
    pub kind: MarkKind,
    /// What was the head.
    pub head: Head,
}

/// A request that was not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who asked: a known actor's label, the name that was tried, or `anonymous`.
    pub actor: String,
    /// Whether the actor proved who they are.
    pub proven: bool,
    /// Where the request came from.
    pub source: String,
    /// The operation that was asked for, as `noun.verb`.
    pub action: String,
    /// What it was asked for on.
    pub target: Option<String>,
    /// Why not.
    pub reason: String,
    /// The request.
    pub request_id: Option<String>,
}
