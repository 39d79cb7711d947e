use super::{hours::Hour, metric::Metric, range::Range, sample::Sample};
use crate::{
    Result,
    clock::Timestamp,
    ids::ServerId,
    page::{Page, PageRequest},
};
use async_trait::async_trait;
use std::{collections::BTreeMap, sync::Arc};

/// What became of a sample that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is stored.
    New,
    /// There was one of this server and time before.
    Duplicate,
}

/// What is read of samples.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of whom.
    pub servers: Vec<ServerId>,
    /// What.
    pub metric: Metric,
    /// When.
    pub range: Range,
    /// How finely.
    pub detail: Detail,
}

/// How finely samples are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Every sample.
    Samples,
    /// Whole days that lie in the range may be told by their hours.
    Hours,
}

/// Samples of one metric, in the order of their times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Column {
    /// Microseconds since 1970.
    pub times: Vec<i64>,
    /// As many.
    pub values: Vec<f64>,
}

/// A part of what is stored of a server. Parts may interleave, but none has a sample that another one has.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Samples. Some may be outside of the range.
    Samples(Column),
    /// Hours, all of them in the range.
    Hours(Vec<Hour>),
}

/// Takes in what is read.
pub trait Visitor: Send + Sync {
    /// One server's pieces. It is called on threads that may take their time, for several servers at once.
    fn visit(&self, server: ServerId, pieces: Vec<Piece>);
}

/// What was measured.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Samples: Send + Sync {
    /// Stores samples of a server; unaudited, since nobody decided them. Tells of each, in their order, what became of it:
    /// the first of a time is kept, whether it comes first in this call or came in an earlier one.
    ///
    /// All or none MUST be stored, and what is stored MUST survive a crash once this returns.
    async fn store(&self, server: ServerId, samples: Vec<Sample>) -> Result<Vec<Kept>>;

    /// Adds readings to samples, which may be there with other metrics: of each metric the first that comes for a server
    /// and time is kept. Tells of each, in their order, how many of its readings are stored by it; unaudited as well.
    ///
    /// What is stored MUST survive a crash once this returns. If it fails, some MAY be stored; who calls again with the
    /// same MUST find all stored, once.
    async fn merge(&self, samples: Vec<(ServerId, Sample)>) -> Result<Vec<usize>>;

    /// The samples of a server, newest first. Pages MUST neither repeat nor skip samples when others come meanwhile.
    async fn list(&self, server: ServerId, page: PageRequest) -> Result<Page<Sample>>;

    /// The newest sample of each server that has one.
    async fn newest(&self, servers: Vec<ServerId>) -> Result<BTreeMap<ServerId, Sample>>;

    /// Reads one metric of each server, and hands it over. MUST call the visitor once for each server, also for one that
    /// has nothing. A sample that is being moved meanwhile MUST be handed over once.
    async fn read(&self, wanted: Wanted, visitor: Arc<dyn Visitor>) -> Result<()>;

    /// Moves samples out of rows into the compressed columns of their days, one server and day at a time, beginning with
    /// those that have waited longest: those with a row from before `before`. Returns how many days were gone through;
    /// after none, nothing is left to do. May be stopped at any moment, and MUST NOT keep others from storing meanwhile.
    async fn seal(&self, before: Timestamp) -> Result<usize>;

    /// Forgets whole days that are over before `before`, in small steps. Returns how many were forgotten.
    async fn forget_before(&self, before: Timestamp) -> Result<usize>;

    /// Who has samples.
    async fn servers(&self) -> Result<Vec<ServerId>>;

    /// Forgets all samples of a server, in small steps.
    async fn forget_server(&self, server: ServerId) -> Result<()>;
}
