use crate::{Error, Result, clock::Timestamp, error::FieldError};
use chrono::TimeDelta;

/// The most hours that a range may have.
pub const MOST_HOURS: i64 = 720;
/// The most points of a series.
pub const MOST_POINTS: u16 = 2000;

/// A part of time: what comes after its beginning, up to its end, which belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    from: Timestamp,
    to: Timestamp,
}

impl Range {
    /// The last so many hours.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `hours`.
    pub fn last(hours: i64, now: Timestamp) -> Result<Self> {
        if !(1..=MOST_HOURS).contains(&hours) {
            return Err(Error::invalid("hours", format!("must be from 1 to {MOST_HOURS}")));
        }
        Ok(Self { from: now - TimeDelta::hours(hours), to: now })
    }

    /// From one time to another; to now if it is not said. What is still to come is left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `from` or `to`.
    pub fn between(from: Timestamp, to: Option<Timestamp>, now: Timestamp) -> Result<Self> {
        if from >= now {
            return Err(Error::invalid("from", "is in the future: there is nothing yet"));
        }
        let to = to.unwrap_or(now).min(now);
        if to <= from {
            return Err(FieldError::new("to", "must be later than from").into());
        }
        if to - from > TimeDelta::hours(MOST_HOURS) {
            let reason =
                format!("is more than {MOST_HOURS} hours before to: ask for shorter ranges one after the other");
            return Err(Error::invalid("from", reason));
        }
        Ok(Self { from, to })
    }

    /// What belongs to it comes after this.
    #[must_use]
    pub fn from(&self) -> Timestamp {
        self.from
    }

    /// The last time that belongs to it.
    #[must_use]
    pub fn to(&self) -> Timestamp {
        self.to
    }

    /// The first time after it.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.to + TimeDelta::microseconds(1)
    }

    pub(super) fn start_us(self) -> i64 {
        self.from.timestamp_micros()
    }

    pub(super) fn end_us(self) -> i64 {
        self.to.timestamp_micros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::START;

    fn check(range: Result<Range>, refused: Option<(&str, &str)>) {
        match (range, refused) {
            (Ok(_), None) => {}
            (Err(Error::Invalid { errors }), Some((field, reason))) => {
                assert_eq!(errors[0].field, field);
                assert!(errors[0].reason.contains(reason), "{errors:?}");
            }
            (range, refused) => panic!("{range:?} is not {refused:?}"),
        }
    }

    #[test]
    fn ranges_are_not_empty_and_not_too_long() {
        let hours = TimeDelta::hours;
        for (hours, refused) in [(1, false), (720, false), (0, true), (721, true), (-1, true), (i64::MAX, true)] {
            check(Range::last(hours, START), refused.then_some(("hours", "from 1 to 720")));
        }
        check(Range::between(START - hours(720), None, START), None);
        check(Range::between(START - hours(721), None, START), Some(("from", "more than 720 hours")));
        check(Range::between(START, None, START), Some(("from", "in the future")));
        check(Range::between(START - hours(1), Some(START - hours(1)), START), Some(("to", "later than from")));
    }

    #[test]
    fn what_is_to_come_is_left_out() {
        let later = START + TimeDelta::hours(5);
        let range = Range::between(START - TimeDelta::hours(1), Some(later), START).unwrap();
        assert_eq!(range.to(), START);
    }
}
