//! Where one run of a container ends and the next one begins. Pure, but for asking.

use crate::drivers::docker::engine::{Engine, Trouble};
use bollard::{
    Docker,
    models::{ContainerInspectResponse, ContainerStateStatusEnum as Status},
    query_parameters::EventsOptions,
};
use chrono::DateTime;
use futures_util::{Stream, StreamExt, TryStreamExt};
use std::{collections::HashMap, pin::Pin, time::Duration};

/// How long the engine may take over a few hundred events.
const PATIENCE: Duration = Duration::from_secs(10);
/// A program may have written this long before the engine takes it for started, in nanoseconds.
const HASTE: u64 = 50_000_000;
/// What is older than the start of a run by this much was written in an earlier one, in nanoseconds.
const DOUBTLESS: u64 = 2_000_000_000;

/// A container, as far as its output is concerned. Times are in nanoseconds since 1970, 0 if there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The engine's own name for it, which no other container will ever have.
    pub(super) id: String,
    pub(super) runs: bool,
    /// Whether it has a terminal.
    pub(super) terminal: bool,
    /// When it was started last.
    pub(super) began: u64,
    /// When it ended last, which may be before that.
    pub(super) ended: u64,
    /// Whether the engine itself has started it again.
    pub(super) restarted: bool,
}

impl Look {
    pub(super) fn read(container: ContainerInspectResponse) -> Self {
        let state = container.state.unwrap_or_default();
        let runs = match state.status {
            Some(Status::RUNNING | Status::PAUSED | Status::STOPPING) => true,
            Some(Status::EMPTY) | None => state.running == Some(true) && state.restarting != Some(true),
            Some(_) => false,
        };
        Self {
            id: container.id.unwrap_or_default(),
            runs,
            terminal: container.config.and_then(|config| config.tty).unwrap_or_default(),
            began: nanos(state.started_at.as_deref()),
            ended: nanos(state.finished_at.as_deref()),
            restarted: container.restart_count.unwrap_or_default() > 0,
        }
    }

    /// Tells apart what cannot have changed.
    pub(super) fn times(&self) -> (bool, u64, u64) {
        (self.runs, self.began, self.ended)
    }
}

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) at: u64,
    pub(super) code: Option<i64>,
}

/// What lies between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// When the run before ended, at the earliest.
    pub(super) ended: u64,
    /// What was written before this time belongs to the run before.
    pub(super) boundary: u64,
    /// Names the gap: when the run after it began, or else when the one before it ended.
    pub(super) mark: u64,
    /// What the run before ended with.
    pub(super) code: Option<i64>,
    /// There is a gap only if something was written before this time.
    pub(super) if_before: Option<u64>,
}

impl Gap {
    /// What is said of it.
    pub(super) fn sentence(&self) -> String {
        match self.code {
            Some(code) => format!("the container ended with code {code}, and was started again"),
            None => "the container ended, and was started again".to_owned(),
        }
    }
}

/// The gaps before the present run, oldest first, from what the engine remembers of ends.
pub(super) fn gaps(look: &Look, ends: &[End]) -> Vec<Gap> {
    let mut ends: Vec<End> = ends.iter().copied().filter(|end| end.at < look.began).collect();
    ends.sort_by_key(|end| end.at);
    let known = (0 < look.ended && look.ended < look.began).then_some(look.ended);
    // The engine tells of an end a little after it. If it does not, it was itself started again since.
    let told = ends.pop_if(|end| known.is_none_or(|known| known <= end.at + DOUBTLESS));
    let mut gaps: Vec<Gap> = ends.iter().map(|end| gap(end.at, end.at, end.at, end.code)).collect();
    match (told, known) {
        (Some(told), known) => gaps.push(gap(known.unwrap_or(told.at).min(told.at), told.at, look.began, told.code)),
        (None, Some(known)) => gaps.push(gap(known, known + (look.began - known) / 2, look.began, None)),
        (None, None) if look.began > 0 && (look.restarted || look.ended >= look.began) => {
            let boundary = look.began.saturating_sub(HASTE);
            let if_before = (!look.restarted).then(|| look.began.saturating_sub(DOUBTLESS));
            gaps.push(Gap { if_before, ..gap(boundary, boundary, look.began, None) });
        }
        (None, None) => {}
    }
    gaps
}

fn gap(ended: u64, boundary: u64, mark: u64, code: Option<i64>) -> Gap {
    Gap { ended, boundary, mark, code, if_before: None }
}

/// When a container ended between two times in the past. The engine forgets: of all its containers together it has the
/// last few hundred events, and none from before it was started.
pub(super) async fn ends(engine: &Engine, id: &str, since: u64, until: u64) -> Result<Vec<End>, Trouble> {
    let filters = [("container", id), ("type", "container"), ("event", "die")];
    let filters: HashMap<_, _> =
        filters.map(|(name, value)| (name.to_owned(), vec![value.to_owned()])).into_iter().collect();
    let options = EventsOptions { since: Some(stamp(since)), until: Some(stamp(until)), filters: Some(filters) };
    let events = engine.ask(|client: Docker| async move { client.events(Some(options)).try_collect::<Vec<_>>().await });
    let events = tokio::time::timeout(PATIENCE, events).await;
    let events = events.map_err(|_late| Trouble::Away("it does not say what happened".to_owned()))??;
    let end = |event: bollard::models::EventMessage| {
        let code = event.actor.and_then(|actor| actor.attributes?.get("exitCode")?.parse().ok());
        Some(End { at: u64::try_from(event.time_nano?).ok()?, code })
    };
    Ok(events.into_iter().filter_map(end).collect())
}

/// Something for each time that a container is started or removed.
pub(super) type Starts = Pin<Box<dyn Stream<Item = ()> + Send>>;

/// Tells when a container is started, or removed, from now on.
pub(super) fn starts(engine: &Engine, id: &str) -> Result<Starts, Trouble> {
    let filters = [("container", vec![id]), ("type", vec!["container"]), ("event", vec!["start", "destroy"])];
    let words = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect();
    let filters = filters.map(|(name, values)| (name.to_owned(), words(values))).into_iter().collect();
    let options = EventsOptions { filters: Some(filters), ..EventsOptions::default() };
    Ok(Box::pin(engine.client(PATIENCE)?.events(Some(options)).map(drop)))
}

/// A time as the engine reads it.
pub(super) fn stamp(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// A moment, unless it is Go's zero.
fn nanos(text: Option<&str>) -> u64 {
    let time = text.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    time.and_then(|time| u64::try_from(time.timestamp_nanos_opt()?).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn look(runs: bool, began: u64, ended: u64, restarted: bool) -> Look {
        Look { runs, began: began * SECOND, ended: ended * SECOND, restarted, ..Look::default() }
    }

    fn check(look: &Look, ends: &[u64], expected: &[(u64, u64, u64)]) {
        let ends: Vec<End> = ends.iter().map(|at| End { at: at * SECOND, code: Some(3) }).collect();
        let gaps: Vec<_> = gaps(look, &ends).iter().map(|gap| (gap.ended, gap.boundary, gap.mark)).collect();
        let expected: Vec<_> = expected.iter().map(|gap| (gap.0 * SECOND, gap.1 * SECOND, gap.2 * SECOND)).collect();
        assert_eq!(gaps, expected, "{look:?} {ends:?}");
    }

    #[test]
    fn runs_are_told_apart_by_what_is_remembered_of_them() {
        // A first run, and none.
        check(&look(true, 10, 0, false), &[], &[]);
        check(&look(false, 0, 0, false), &[], &[]);
        // The engine tells of each end; of the last one, it also says when the next run began.
        check(&look(true, 30, 20, true), &[10, 21], &[(10, 10, 10), (20, 21, 30)]);
        // The end of the present run is none before it.
        check(&look(false, 30, 40, true), &[21, 40], &[(21, 21, 30)]);
        // The engine has forgotten the last one, or all of them.
        check(&look(true, 30, 20, false), &[10], &[(10, 10, 10), (20, 25, 30)]);
        check(&look(true, 30, 20, false), &[], &[(20, 25, 30)]);
    }

    #[test]
    fn of_what_has_ended_only_its_output_may_tell_whether_it_ran_before() {
        let ended = gaps(&look(false, 30, 40, false), &[]);
        assert_eq!(ended.first().map(|gap| (gap.mark, gap.if_before)), Some((30 * SECOND, Some(28 * SECOND))));
        assert_eq!(gaps(&look(false, 30, 40, true), &[]).first().map(|gap| gap.if_before), Some(None));
    }

    #[test]
    fn times_are_written_as_the_engine_reads_them() {
        assert_eq!(stamp(1_700_000_000_000_000_007), "1700000000.000000007");
        assert_eq!(nanos(Some("0001-01-01T00:00:00Z")), 0);
        assert_eq!(nanos(Some("1970-01-01T00:00:01.5Z")), 1_500_000_000);
    }
}
