use super::{
    model::{Container, ContainerFilter},
    wire::ContainerReport,
};
use crate::{
    Result,
    clock::Timestamp,
    ids::{ContainerId, ServerId},
    page::{Page, PageRequest},
};
use async_trait::async_trait;

/// What container engines have, as it was last reported.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Containers: Send + Sync {
    /// Takes in what a server's agent said at `at`; unaudited, since nobody decided it. A container that is new to us
    /// gets an id; one that is gone is forgotten, and so is what it used. Whatever is known of the server counts as
    /// confirmed at `at`. Saying it twice MUST change nothing else.
    ///
    /// MUST do nothing and fail with [`crate::Error::NotFound`] if there is no such server.
    async fn report(&self, server: ServerId, report: ContainerReport, at: Timestamp) -> Result<()>;

    /// Containers that match, newest first. Pages MUST neither repeat nor skip rows when others are inserted meanwhile.
    async fn list(&self, filter: ContainerFilter, page: PageRequest) -> Result<Page<Container>>;

    /// MUST fail with [`crate::Error::NotFound`] if there is none.
    async fn get(&self, id: ContainerId) -> Result<Container>;
}
