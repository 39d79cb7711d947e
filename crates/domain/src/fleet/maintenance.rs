//! Maintenance windows: times, told beforehand, in which a server takes no new work.
//!
//! Invariants: a window begins and ends by itself, and what it was once it has ended stays; while at least one window of
//! a server is in progress that server is in `maintenance`, and each of them remembers what the server was before.

use super::model::{Server, ServerStatus};
use crate::{
    Error, Result,
    change::Recorded,
    clock::Timestamp,
    ids::{ServerId, WindowId},
    patch::Patch,
    text::Name,
    words::words,
};
use chrono::{SecondsFormat, TimeDelta};
use serde::{Deserialize, Serialize};

/// The longest window, in minutes: a day.
pub const MAX_DURATION_MINUTES: u32 = 1440;
/// How far ahead a window may be planned, in days; what is further away is a slip of the pen.
const MAX_DAYS_AHEAD: i64 = 3660;

words! {
    /// How far a window is.
    WindowStatus {
        /// It is still to come.
        Scheduled = "scheduled",
        /// Its server is in maintenance.
        InProgress = "in_progress",
        /// It has ended at its time, or was ended before.
        Completed = "completed",
        /// It was called off, before it began or in the middle.
        Cancelled = "cancelled",
    }
}

/// A maintenance window of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its id.
    pub id: WindowId,
    /// The server that is taken out of use.
    pub server_id: ServerId,
    /// What it is for, in a line.
    pub title: Name,
    /// What else is to be known.
    pub description: Option<String>,
    /// When it is to begin.
    pub scheduled_for: Timestamp,
    /// How long it is to last, 1 to [`MAX_DURATION_MINUTES`].
    pub duration_minutes: u32,
    /// How far it is.
    pub status: WindowStatus,
    /// When it took its server out of use; never, if it was cancelled or missed.
    pub started_at: Option<Timestamp>,
    /// When it let go of its server.
    pub ended_at: Option<Timestamp>,
    /// What its server was before the first of the windows that overlap; known while this one is in progress.
    pub back_to: Option<ServerStatus>,
    /// Counts changes; the `ETag`.
    pub revision: i64,
    /// Who planned it, as audit rows name them.
    pub created_by: String,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Recorded for Window {
    const KIND: &'static str = "maintenance";
    fn id(&self) -> i64 {
        self.id.0
    }
}

/// The time that a window takes, as trends draw it and alerts are silent in it: from, and until just before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
}

impl Span {
    /// Whether some of it is in the time from `from` until just before `until`.
    #[must_use]
    pub fn overlaps(&self, from: Timestamp, until: Timestamp) -> bool {
        self.from < until && from < self.until
    }
}

impl Window {
    /// When it is to end.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        end_of(self.scheduled_for, self.duration_minutes)
    }

    /// Whether it is still to come, or in progress.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self.status {
            WindowStatus::Scheduled | WindowStatus::InProgress => true,
            WindowStatus::Completed | WindowStatus::Cancelled => false,
        }
    }

    /// Whether its server is in maintenance for it.
    #[must_use]
    pub fn is_in_progress(&self) -> bool {
        self.status == WindowStatus::InProgress
    }

    /// Whether its whole time passed while the product was down, so that it never took its server out of use.
    #[must_use]
    pub fn was_missed(&self) -> bool {
        self.status == WindowStatus::Completed && self.started_at.is_none()
    }

    /// What else is to be known of how it went.
    #[must_use]
    pub fn note(&self) -> Option<&'static str> {
        let missed =
            "StarLink or its database was away in all of its time, so its server was not taken out of use for it";
        self.was_missed().then_some(missed)
    }

    /// When something is to happen to it by itself.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.status {
            WindowStatus::Scheduled => Some(self.scheduled_for),
            WindowStatus::InProgress => Some(self.ends_at()),
            WindowStatus::Completed | WindowStatus::Cancelled => None,
        }
    }

    /// The time that it takes or took: as it really was, as far as that is known, and as planned otherwise. One that was
    /// noticed late to have ended counts until the end that was planned. One that was missed counts as planned, since
    /// people who had planned it may well have worked on the machine. One that was cancelled before it began takes none.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        let from = match self.status {
            WindowStatus::Cancelled => self.started_at?,
            _ => self.started_at.unwrap_or(self.scheduled_for),
        };
        let until = self.ended_at.map_or(self.ends_at(), |ended| ended.min(self.ends_at()));
        Some(Span { from, until: until.max(from) })
    }

    /// This window with a patch applied, at its next revision.
    ///
    /// # Errors
    /// `illegal_transition` for a status or a time that it cannot get any more; [`Error::Invalid`] if by its new time it
    /// would have been over already.
    pub fn patched(&self, patch: WindowPatch, now: Timestamp) -> Result<Self> {
        let edited = Self {
            title: patch.title.unwrap_or_else(|| self.title.clone()),
            description: patch.description.apply(self.description.clone()),
            scheduled_for: patch.scheduled_for.unwrap_or(self.scheduled_for),
            duration_minutes: patch.duration_minutes.unwrap_or(self.duration_minutes),
            revision: self.revision + 1,
            updated_at: now,
            ..self.clone()
        };
        edited.check_time(self, now)?;
        match patch.status {
            Some(status) if status != self.status => edited.moved_to(status, now),
            _ => Ok(edited),
        }
    }

    /// What became of it, as audit rows name it, where it was `before`.
    #[must_use]
    pub fn deed_since(&self, before: &Self) -> &'static str {
        match self.status {
            status if status == before.status => "maintenance.update",
            WindowStatus::Scheduled => "maintenance.update",
            WindowStatus::InProgress => "maintenance.start",
            WindowStatus::Completed => "maintenance.complete",
            WindowStatus::Cancelled => "maintenance.cancel",
        }
    }

    /// This window in progress, on a server that goes `back_to` this when it is over.
    pub(super) fn begun(&self, back_to: ServerStatus, now: Timestamp) -> Self {
        Self { status: WindowStatus::InProgress, started_at: Some(now), back_to: Some(back_to), ..self.touched(now) }
    }

    /// This window at its end. A clock that was set back does not make it end before it began.
    pub(super) fn ended(&self, now: Timestamp) -> Self {
        let ended_at = self.started_at.map(|started| started.max(now));
        Self { status: WindowStatus::Completed, ended_at, back_to: None, ..self.touched(now) }
    }

    fn touched(&self, now: Timestamp) -> Self {
        Self { revision: self.revision + 1, updated_at: now, ..self.clone() }
    }

    /// Says why the status of a server cannot be changed while this window is in progress.
    #[must_use]
    pub fn holds(&self, server: &Server) -> Error {
        let reason = format!(
            "server \"{}\" is in maintenance until {} for window {} \"{}\", and then becomes what it is by itself; to end \
             that now, PATCH /maintenance/{} with {{\"status\": \"completed\"}}",
            server.name,
            shown(self.ends_at()),
            self.id,
            self.title,
            self.id
        );
        Error::conflict("maintenance_in_progress", reason)
    }

    /// Refuses a time that a window which was `before` cannot get.
    fn check_time(&self, before: &Self, now: Timestamp) -> Result<()> {
        let moved = self.scheduled_for != before.scheduled_for;
        if !moved && self.duration_minutes == before.duration_minutes {
            return Ok(());
        }
        match before.status {
            WindowStatus::Scheduled => check_to_come(self.scheduled_for, self.duration_minutes, now),
            WindowStatus::InProgress if moved => self.refuse(
                "it has begun, so its start cannot be moved; change duration_minutes, or end it and plan another",
            ),
            WindowStatus::InProgress if self.ends_at() <= now => {
                let reason = format!(
                    "would have ended the window at {}, which is past; give more minutes, or end it now with \
                     {{\"status\": \"completed\"}}",
                    shown(self.ends_at())
                );
                Err(Error::invalid("duration_minutes", reason))
            }
            WindowStatus::InProgress => Ok(()),
            WindowStatus::Completed | WindowStatus::Cancelled => self.refuse(&format!(
                "it is {}, and its times tell what was; title and description can still be changed",
                before.status
            )),
        }
    }

    /// This window, patched already, in a status that somebody asked for.
    fn moved_to(self, status: WindowStatus, now: Timestamp) -> Result<Self> {
        use WindowStatus::{Cancelled, Completed, InProgress, Scheduled};
        let why = match (self.status, status) {
            (Scheduled, Cancelled) => return Ok(Self { status, ..self }),
            (InProgress, Completed | Cancelled) => {
                return Ok(Self { status, revision: self.revision, ..self.ended(now) });
            }
            (Scheduled, Completed) => "it has not begun; to call it off, send {\"status\": \"cancelled\"}".to_owned(),
            (_, InProgress) if self.is_open() => {
                "a window begins by itself; to have it begin now, set scheduled_for to now".to_owned()
            }
            (_, Scheduled) if self.is_open() => "it has begun; end it and plan another".to_owned(),
            _ => format!("it is {} and stays so; plan another window instead", self.status),
        };
        self.refuse(&why)
    }

    fn refuse<T>(&self, why: &str) -> Result<T> {
        Err(Error::conflict("illegal_transition", format!("maintenance window {} cannot become so: {why}", self.id)))
    }
}

fn end_of(from: Timestamp, minutes: u32) -> Timestamp {
    // What is read from a database may be any time at all.
    from.checked_add_signed(TimeDelta::minutes(minutes.into())).unwrap_or(Timestamp::MAX_UTC)
}

fn shown(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Refuses a time that is over, or so far ahead that nobody means it.
fn check_to_come(scheduled_for: Timestamp, minutes: u32, now: Timestamp) -> Result<()> {
    let end = end_of(scheduled_for, minutes);
    if end <= now {
        let reason = format!(
            "is so long ago that the window was over at {}; give a later time, or, for work that still goes on, a longer \
             duration_minutes",
            shown(end)
        );
        return Err(Error::invalid("scheduled_for", reason));
    }
    if scheduled_for - now > TimeDelta::days(MAX_DAYS_AHEAD) {
        return Err(Error::invalid("scheduled_for", "must be within ten years from now"));
    }
    Ok(())
}

/// Reads a duration.
///
/// # Errors
/// A sentence that says what it may be.
pub fn parse_duration_minutes(minutes: i64) -> Result<u32, String> {
    let inside = u32::try_from(minutes).ok().filter(|minutes| (1..=MAX_DURATION_MINUTES).contains(minutes));
    inside.ok_or_else(|| format!("must be from 1 to {MAX_DURATION_MINUTES}"))
}

/// A window to be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWindow {
    /// What it is for, in a line.
    pub title: Name,
    /// What else is to be known.
    pub description: Option<String>,
    /// When it is to begin; a time that is past has it begin at once.
    pub scheduled_for: Timestamp,
    /// How long it is to last, see [`parse_duration_minutes`].
    pub duration_minutes: u32,
}

impl NewWindow {
    /// # Errors
    /// [`Error::Invalid`] if it is over already, or too far ahead.
    pub fn check(&self, now: Timestamp) -> Result<()> {
        check_to_come(self.scheduled_for, self.duration_minutes, now)
    }

    /// The window that this becomes under an id.
    #[must_use]
    pub fn into_window(self, id: WindowId, server_id: ServerId, created_by: String, now: Timestamp) -> Window {
        Window {
            id,
            server_id,
            title: self.title,
            description: self.description,
            scheduled_for: self.scheduled_for,
            duration_minutes: self.duration_minutes,
            status: WindowStatus::Scheduled,
            started_at: None,
            ended_at: None,
            back_to: None,
            revision: 1,
            created_by,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A merge patch of a window.
#[derive(Debug, Clone, Default)]
pub struct WindowPatch {
    /// Another title.
    pub title: Option<Name>,
    /// Another description.
    pub description: Patch<String>,
    /// Another time.
    pub scheduled_for: Option<Timestamp>,
    /// Another duration.
    pub duration_minutes: Option<u32>,
    /// Ends it or calls it off.
    pub status: Option<WindowStatus>,
}

/// Which windows are wanted; all that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowFilter {
    /// Of one of these servers; of any, if none is named.
    pub servers: Vec<ServerId>,
    /// In this status.
    pub status: Option<WindowStatus>,
    /// Only those that are still to come, or in progress.
    pub upcoming_only: bool,
}

#[cfg(test)]
#[path = "maintenance_tests.rs"]
mod tests;
