//! The output of an attempt, from its log on this machine.

use super::{
    Shared, Sources,
    link::{Closing, Gone, Link},
};
use crate::{
    logs::{self, LogError},
    work::WorkId,
};
use domain::fleet::protocol::LogQuery;
use futures_util::FutureExt;
use std::path::PathBuf;

impl Shared {
    pub(super) async fn logs(&self, link: &mut Link, query: LogQuery) -> Result<Closing, Gone> {
        let folder = self.folder(&query);
        if !folder.is_dir() {
            return Ok(Closing::new(4404, "unknown_work"));
        }
        let mut lines = match logs::Lines::open(&folder, query).await {
            Ok(lines) => lines,
            Err(error) => return Ok(refused(&error)),
        };
        loop {
            // What is there is sent in one go; what is still to come is waited for.
            let next = if let Some(next) = lines.next().now_or_never() {
                next
            } else {
                link.flush().await?;
                tokio::select! {
                    next = lines.next() => next,
                    heard = link.attend() => {
                        heard?;
                        continue;
                    }
                }
            };
            match next {
                Ok(Some(next)) => link.feed(&next).await?,
                Ok(None) => return Ok(Closing::end()),
                Err(error) => return Ok(refused(&error)),
            }
        }
    }

    fn folder(&self, query: &LogQuery) -> PathBuf {
        let Sources { state, installation, .. } = &self.sources;
        let (installation, task, attempt) = (installation.clone(), query.task_id, query.attempt);
        state.work_folder(&WorkId { installation, task, attempt })
    }
}

fn refused(error: &LogError) -> Closing {
    match error {
        LogError::Cursor(_) => Closing::new(4400, error),
        LogError::Io(_) => Closing::new(1011, error),
    }
}
