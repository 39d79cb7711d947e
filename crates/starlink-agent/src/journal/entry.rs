use crate::work::WorkId;
use domain::{
    clock::Timestamp,
    fleet::protocol::{End, RunTask},
    ids::OperationId,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One step of an operation. `Debug` shows no secrets: an environment hides its values itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// Whose operations these are.
    Installation {
        /// See [`domain::fleet::protocol::SessionOpened::installation`].
        id: String,
    },
    /// The driver is about to be told to start it: from here on it may have run.
    Begun {
        /// Which.
        operation: OperationId,
        /// What its work is called.
        #[serde(with = "work_name")]
        work: WorkId,
        /// What is to be done.
        #[serde(with = "shared")]
        order: Arc<RunTask>,
        /// When.
        at: Timestamp,
    },
    /// What runs no task is about to be done: from here on it may have been.
    Undertaken {
        /// Which.
        operation: OperationId,
        /// What: see [`Record::deed`].
        deed: String,
        /// When.
        at: Timestamp,
    },
    /// The driver has started it.
    Running {
        /// Which.
        operation: OperationId,
        /// Since when.
        at: Timestamp,
    },
    /// Its end is about to be brought about.
    Ending {
        /// Which.
        operation: OperationId,
    },
    /// It was not begun after all: the driver was stopped before it had made anything.
    Retracted {
        /// Which.
        operation: OperationId,
    },
    /// It has ended, or will never be begun.
    Ended {
        /// Which.
        operation: OperationId,
        /// What its work is called, if it has any.
        #[serde(default, with = "work_name_maybe")]
        work: Option<WorkId>,
        /// What it was, if it ran no task.
        #[serde(default)]
        deed: Option<String>,
        /// How.
        end: End,
    },
    /// The server knows how it ended, or does not want to.
    Reported {
        /// Which.
        operation: OperationId,
    },
    /// Written by a newer agent.
    #[serde(other)]
    Unknown,
}

impl Entry {
    /// Whether something is done only because it was written.
    pub(super) fn permits(&self) -> bool {
        matches!(self, Self::Begun { .. } | Self::Undertaken { .. })
    }

    /// Whether it has to survive a loss of power before anything else happens.
    pub(super) fn is_durable(&self) -> bool {
        // Without the first the driver is asked, without the others the server says so again, or is told again.
        !matches!(self, Self::Running { .. } | Self::Ending { .. } | Self::Reported { .. })
    }
}

/// What is known of an operation.
#[derive(Debug, Clone)]
pub struct Record {
    /// What its work is called; `None` for what this agent did not understand.
    pub work: Option<WorkId>,
    /// What was to be done, if it runs no task: a digest of the order. It tells another operation that was given the same
    /// number from this one.
    pub deed: Option<String>,
    /// What was to be done; forgotten once its end is reported, and absent if it was never begun.
    pub order: Option<Arc<RunTask>>,
    /// When it was begun.
    pub begun_at: Option<Timestamp>,
    /// Since when it runs, if the driver said so.
    pub running_since: Option<Timestamp>,
    /// Whether its end was to be brought about.
    pub ending: bool,
    /// How it ended.
    pub end: Option<End>,
    /// Whether the server knows.
    pub reported: bool,
}

impl Record {
    pub(super) fn begun(work: WorkId, order: Arc<RunTask>, at: Timestamp) -> Self {
        Self { order: Some(order), begun_at: Some(at), ..Self::not_begun(Some(work), None) }
    }

    pub(super) fn undertaken(deed: String, at: Timestamp) -> Self {
        Self { begun_at: Some(at), ..Self::not_begun(None, Some(deed)) }
    }

    pub(super) fn not_begun(work: Option<WorkId>, deed: Option<String>) -> Self {
        Self { work, deed, order: None, begun_at: None, running_since: None, ending: false, end: None, reported: false }
    }

    pub(super) fn entries(&self, operation: OperationId) -> Vec<Entry> {
        let begun = match (&self.work, &self.order, self.begun_at) {
            (Some(work), Some(order), Some(at)) => {
                Some(Entry::Begun { operation, work: work.clone(), order: order.clone(), at })
            }
            (None, None, Some(at)) => self.deed.clone().map(|deed| Entry::Undertaken { operation, deed, at }),
            _ => None,
        };
        let running = self.running_since.filter(|_| begun.is_some()).map(|at| Entry::Running { operation, at });
        let ending = (self.ending && begun.is_some()).then_some(Entry::Ending { operation });
        let ended = self.end.clone().map(|end| Entry::Ended {
            operation,
            work: self.work.clone(),
            deed: self.deed.clone(),
            end,
        });
        let reported = self.reported.then_some(Entry::Reported { operation });
        [begun, running, ending, ended, reported].into_iter().flatten().collect()
    }
}

/// As if it were not shared.
mod shared {
    use super::{Arc, RunTask};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(order: &Arc<RunTask>, serializer: S) -> Result<S::Ok, S::Error> {
        RunTask::serialize(order, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<RunTask>, D::Error> {
        RunTask::deserialize(deserializer).map(Arc::new)
    }
}

mod work_name {
    use super::WorkId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(work: &WorkId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(work)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WorkId, D::Error> {
        let text = String::deserialize(deserializer)?;
        WorkId::parse(&text).ok_or_else(|| D::Error::custom("no name of work"))
    }
}

mod work_name_maybe {
    use super::WorkId;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde gives it so")]
    pub(super) fn serialize<S: Serializer>(work: &Option<WorkId>, serializer: S) -> Result<S::Ok, S::Error> {
        match work {
            Some(work) => serializer.collect_str(work),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WorkId>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| WorkId::parse(&text)))
    }
}
