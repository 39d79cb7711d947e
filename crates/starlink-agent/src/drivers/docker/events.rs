//! What the engine remembers of a container's past.

use super::{DockerDriver, engine::Trouble, seen::Seen};
use bollard::{
    Docker,
    container::LogOutput,
    query_parameters::{EventsOptions, LogsOptions},
};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt};
use std::{collections::HashMap, time::Duration};

/// How long it may take over a few hundred events, or three lines.
const PATIENCE: Duration = Duration::from_secs(10);

impl DockerDriver {
    /// When `action` happened to a container between two times in the past. The engine forgets: of all its containers
    /// together it has the last few hundred events, and none from before it was started.
    pub(super) async fn events(
        &self,
        id: &str,
        action: &str,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Vec<DateTime<Utc>>, Trouble> {
        let filters = [("container", id), ("type", "container"), ("event", action)];
        let filters: HashMap<_, _> =
            filters.map(|(name, value)| (name.to_owned(), vec![value.to_owned()])).into_iter().collect();
        let options = EventsOptions { since: Some(stamp(since)), until: Some(stamp(until)), filters: Some(filters) };
        let events =
            self.engine.ask(|client: Docker| async move { client.events(Some(options)).try_collect::<Vec<_>>().await });
        let events = tokio::time::timeout(PATIENCE, events).await;
        let events = events.map_err(|_late| Trouble::Away("it does not say what happened".to_owned()))??;
        Ok(events.iter().filter_map(|event| event.time_nano).map(DateTime::from_timestamp_nanos).collect())
    }

    /// Whether the last run of a container did not end by itself, but because somebody told the engine to end it.
    pub(super) async fn was_ended_by_hand(&self, seen: &Seen) -> bool {
        let Some(began) = seen.started_at else { return false };
        // The engine tells of it after it was done, so that it may seem to be later than the end.
        let kills = self.events(&seen.id, "kill", began, self.clock.now()).await;
        kills.is_ok_and(|kills| !kills.is_empty())
    }

    /// What a container wrote last to its standard error.
    pub(super) async fn last_words(&self, id: &str) -> String {
        let options = LogsOptions { stderr: true, tail: "3".to_owned(), ..LogsOptions::default() };
        let Ok(client) = self.engine.client(PATIENCE) else { return String::new() };
        let lines = client.logs(id, Some(options)).take(3).collect::<Vec<_>>();
        let lines = tokio::time::timeout(PATIENCE, lines).await.unwrap_or_default();
        let bytes: Vec<u8> = lines.into_iter().flatten().flat_map(LogOutput::into_bytes).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A time as the engine reads it.
pub(super) fn stamp(time: DateTime<Utc>) -> String {
    format!("{}.{:09}", time.timestamp(), time.timestamp_subsec_nanos())
}
