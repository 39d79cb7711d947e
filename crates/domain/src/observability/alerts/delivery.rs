//! Messages on their way: each is tried until it comes through or there is no more sense in it.

use super::message::MessageKind;
use crate::{
    clock::Timestamp,
    ids::{AlertId, DeliveryId, TargetId},
    words::words,
};
use chrono::TimeDelta;
use std::time::Duration;

/// How often a message is tried.
pub const MOST_TRIES: u32 = 10;
/// For how long.
const LONGEST: TimeDelta = TimeDelta::hours(24);
/// How long after the first try the second one is.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(10);
/// The longest time between two tries, whoever asks for more.
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(1);

words! {
    /// What became of a message.
    DeliveryState {
        /// It is to be tried.
        Pending = "pending",
        /// It came through.
        Delivered = "delivered",
        /// It did not, and is not tried any more.
        Failed = "failed",
    }
}

/// A message to a target, as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its id, which goes along with it however often it is sent.
    pub id: DeliveryId,
    /// The alert, if it is about one.
    pub alert_id: Option<AlertId>,
    /// The target.
    pub target_id: TargetId,
    /// What that was called.
    pub target_name: String,
    /// What it is about.
    pub event: MessageKind,
    /// What became of it.
    pub state: DeliveryState,
    /// When it is tried next.
    pub due_at: Option<Timestamp>,
    /// When it was decided.
    pub created_at: Timestamp,
    /// When nothing more was to be done.
    pub finished_at: Option<Timestamp>,
    /// What came of each try.
    pub tries: Vec<Try>,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// When.
    pub at: Timestamp,
    /// What was answered, as far as anything was.
    pub status: Option<u16>,
    /// What went wrong, without secrets.
    pub error: Option<String>,
}

/// What whoever sent a message says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// How it went.
    pub fate: Fate,
    /// What was answered, as far as anything was.
    pub status: Option<u16>,
    /// What went wrong, without secrets.
    pub error: Option<String>,
}

/// How a try went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It came through.
    Delivered,
    /// It may next time, which is not to be before that time has passed, if one was asked for.
    Again(Option<Duration>),
    /// It never will.
    Never,
}

/// What is to become of a message after a try, of which this was the `tries`th: its state, and when it is tried again.
/// `chance` spreads those that failed together.
#[must_use]
pub fn after_try(
    fate: Fate,
    tries: u32,
    created_at: Timestamp,
    now: Timestamp,
    chance: u8,
) -> (DeliveryState, Option<Timestamp>) {
    let pause = match fate {
        Fate::Delivered => return (DeliveryState::Delivered, None),
        Fate::Never => return (DeliveryState::Failed, None),
        Fate::Again(Some(asked)) => TimeDelta::from_std(asked).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE),
        Fate::Again(None) => {
            let doubled = FIRST_PAUSE * 2_i32.pow(tries.saturating_sub(1).min(10));
            let pause = doubled.min(LONGEST_PAUSE);
            pause + pause * i32::from(chance) / 1024
        }
    };
    let next = now + pause;
    if tries >= MOST_TRIES || next - created_at > LONGEST {
        return (DeliveryState::Failed, None);
    }
    (DeliveryState::Pending, Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::START;

    fn check(fate: Fate, tries: u32, hours: i64, expected: (DeliveryState, Option<i64>)) {
        let now = START + TimeDelta::hours(hours);
        let (state, next) = after_try(fate, tries, START, now, 0);
        assert_eq!((state, next.map(|next| (next - now).num_seconds())), expected, "{fate:?} {tries} {hours}");
    }

    #[test]
    fn pauses_grow_and_end() {
        use DeliveryState::{Delivered, Failed, Pending};
        check(Fate::Delivered, 1, 0, (Delivered, None));
        check(Fate::Never, 1, 0, (Failed, None));
        for (tries, seconds) in [(1, 10), (2, 20), (3, 40), (9, 2560)] {
            check(Fate::Again(None), tries, 0, (Pending, Some(seconds)));
        }
        check(Fate::Again(None), 10, 0, (Failed, None));
        check(Fate::Again(None), 1, 24, (Failed, None));
    }

    #[test]
    fn who_asks_for_time_gets_it_within_reason() {
        use DeliveryState::Pending;
        check(Fate::Again(Some(Duration::from_secs(1))), 3, 0, (Pending, Some(1)));
        check(Fate::Again(Some(Duration::from_hours(24))), 3, 0, (Pending, Some(3600)));
        let (_, next) = after_try(Fate::Again(None), 1, START, START, 255);
        assert!(next.unwrap() - START < TimeDelta::seconds(13) && next.unwrap() - START > TimeDelta::seconds(12));
    }
}
