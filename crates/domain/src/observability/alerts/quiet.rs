use crate::{clock::Timestamp, words::words};
use chrono::{Datelike, Days, NaiveDate, NaiveTime, TimeDelta, Timelike, Weekday};
use serde::{Deserialize, Serialize};

/// The most quiet hours that a rule has.
pub const MOST_QUIET_HOURS: usize = 32;
/// Minutes in a day.
const DAY: u32 = 1440;
/// No place on earth is further from UTC, in minutes.
const MOST_OFFSET: i32 = 14 * 60;

words! {
    /// A day of the week.
    Day {
        /// Monday.
        Monday = "mon",
        /// Tuesday.
        Tuesday = "tue",
        /// Wednesday.
        Wednesday = "wed",
        /// Thursday.
        Thursday = "thu",
        /// Friday.
        Friday = "fri",
        /// Saturday.
        Saturday = "sat",
        /// Sunday.
        Sunday = "sun",
    }
}

impl Day {
    fn of(date: NaiveDate) -> Self {
        match date.weekday() {
            Weekday::Mon => Self::Monday,
            Weekday::Tue => Self::Tuesday,
            Weekday::Wed => Self::Wednesday,
            Weekday::Thu => Self::Thursday,
            Weekday::Fri => Self::Friday,
            Weekday::Sat => Self::Saturday,
            Weekday::Sun => Self::Sunday,
        }
    }
}

/// Hours of certain days in which nobody is told anything. They belong to the day on which they begin; those that end no
/// later than they begin end on the day after.
///
/// They are counted at a fixed distance from UTC: whoever wants them to follow the clocks of a country changes that with
/// the clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct QuietHours {
    days: Vec<Day>,
    from: u32,
    to: u32,
    offset_minutes: i32,
}

/// Quiet hours as they stand in requests and in the database.
#[derive(Serialize, Deserialize)]
struct Written {
    days: Vec<Day>,
    from: String,
    to: String,
    utc_offset: String,
}

impl TryFrom<Written> for QuietHours {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        Self::parse(written.days, &written.from, &written.to, &written.utc_offset)
            .map_err(|(field, reason)| format!("{field} {reason}"))
    }
}

impl From<QuietHours> for Written {
    fn from(hours: QuietHours) -> Self {
        let (from, to, utc_offset) = (hours.from(), hours.to(), hours.utc_offset());
        Self { days: hours.days, from, to, utc_offset }
    }
}

impl QuietHours {
    /// Reads days, times such as `22:00`, and a distance from UTC such as `+02:00` or `Z`.
    ///
    /// # Errors
    /// Which of the four is wrong, and what it may be.
    pub fn parse(days: Vec<Day>, from: &str, to: &str, utc_offset: &str) -> Result<Self, (&'static str, String)> {
        let mut sorted = days;
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.is_empty() {
            return Err(("days", "must name at least one day, such as mon".to_owned()));
        }
        let from = minute(from).ok_or_else(|| ("from", "must be a time of day such as 22:00".to_owned()))?;
        let to = minute(to).ok_or_else(|| ("to", "must be a time of day such as 06:00".to_owned()))?;
        let offset = offset(utc_offset)
            .ok_or_else(|| ("utc_offset", "must be Z, or from -14:00 to +14:00, such as +02:00".to_owned()))?;
        Ok(Self { days: sorted, from, to, offset_minutes: offset })
    }

    /// The days on which they begin.
    #[must_use]
    pub fn days(&self) -> &[Day] {
        &self.days
    }

    /// When they begin.
    #[must_use]
    pub fn from(&self) -> String {
        shown(self.from)
    }

    /// When they end.
    #[must_use]
    pub fn to(&self) -> String {
        shown(self.to)
    }

    /// How far their clock is ahead of UTC.
    #[must_use]
    pub fn utc_offset(&self) -> String {
        let sign = if self.offset_minutes < 0 { '-' } else { '+' };
        format!("{sign}{}", shown(self.offset_minutes.unsigned_abs()))
    }

    /// When those end that a moment is in.
    #[must_use]
    pub fn end(&self, at: Timestamp) -> Option<Timestamp> {
        let local = at.naive_utc().checked_add_signed(TimeDelta::minutes(self.offset_minutes.into()))?;
        let minute = local.hour() * 60 + local.minute();
        let over_night = self.to <= self.from;
        let begins = |date: NaiveDate| self.days.contains(&Day::of(date));
        let today = local.date();
        let last = if begins(today) && minute >= self.from && (over_night || minute < self.to) {
            today.checked_add_days(Days::new(u64::from(over_night)))?
        } else if over_night && minute < self.to && begins(today.checked_sub_days(Days::new(1))?) {
            today
        } else {
            return None;
        };
        let end = last.and_time(NaiveTime::from_hms_opt(self.to / 60, self.to % 60, 0)?);
        Some(end.checked_sub_signed(TimeDelta::minutes(self.offset_minutes.into()))?.and_utc())
    }
}

/// When it is no longer quiet, where it is at a moment. Hours that follow each other are quiet together; those that follow
/// each other for ever are so for a while, and are then looked at again.
pub(super) fn quiet_until(hours: &[QuietHours], at: Timestamp) -> Option<Timestamp> {
    let end = |at| hours.iter().filter_map(|hours| hours.end(at)).max();
    let mut until = end(at)?;
    for _ in 0..MOST_QUIET_HOURS {
        match end(until) {
            Some(later) => until = later,
            None => break,
        }
    }
    Some(until)
}

/// `22:00` as minutes.
fn minute(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hour) || !digits(minute) {
        return None;
    }
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute).filter(|minutes| *minutes < DAY)
}

fn offset(text: &str) -> Option<i32> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let minutes = i32::try_from(minute(rest)?).ok()?;
    (minutes <= MOST_OFFSET).then_some(sign * minutes)
}

fn shown(minutes: u32) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hours(days: &[Day], from: &str, to: &str, offset: &str) -> QuietHours {
        QuietHours::parse(days.to_vec(), from, to, offset).unwrap()
    }

    #[test]
    fn they_end_when_they_say() {
        let check = |hours: &QuietHours, now: &str, end: Option<&str>| {
            assert_eq!(hours.end(at(now)), end.map(at), "{hours:?} at {now}");
        };
        // 2026-11-30 is a Monday.
        let noon = hours(&[Day::Monday], "12:00", "13:00", "Z");
        check(&noon, "2026-11-30T11:59:59Z", None);
        check(&noon, "2026-11-30T12:00:00Z", Some("2026-11-30T13:00:00Z"));
        check(&noon, "2026-11-30T13:00:00Z", None);
        check(&noon, "2026-12-01T12:30:00Z", None);
        let night = hours(&[Day::Monday], "22:00", "06:00", "Z");
        check(&night, "2026-11-30T05:00:00Z", None);
        check(&night, "2026-11-30T23:00:00Z", Some("2026-12-01T06:00:00Z"));
        check(&night, "2026-12-01T05:59:00Z", Some("2026-12-01T06:00:00Z"));
        check(&night, "2026-12-01T22:30:00Z", None);
        let east = hours(&[Day::Tuesday], "00:00", "06:00", "+02:00");
        check(&east, "2026-11-30T22:00:00Z", Some("2026-12-01T04:00:00Z"));
        check(&east, "2026-11-30T21:59:00Z", None);
        let all_day = hours(&[Day::Saturday, Day::Sunday], "00:00", "00:00", "-05:00");
        check(&all_day, "2026-12-05T05:00:00Z", Some("2026-12-06T05:00:00Z"));
        assert_eq!(quiet_until(&[all_day], at("2026-12-05T05:00:00Z")), Some(at("2026-12-07T05:00:00Z")));
    }

    #[test]
    fn they_are_read_as_they_are_written() {
        let night = hours(&[Day::Friday, Day::Monday, Day::Friday], "22:00", "06:30", "-03:30");
        let text = serde_json::to_string(&night).unwrap();
        assert_eq!(text, r#"{"days":["mon","fri"],"from":"22:00","to":"06:30","utc_offset":"-03:30"}"#);
        assert_eq!(serde_json::from_str::<QuietHours>(&text).unwrap(), night);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let check = |days: &[Day], from: &str, to: &str, offset: &str, field: &str| {
            assert_eq!(QuietHours::parse(days.to_vec(), from, to, offset).unwrap_err().0, field);
        };
        let day = [Day::Monday];
        check(&[], "22:00", "06:00", "Z", "days");
        for bad in ["24:00", "7:00", "12:60", "12", "", "+1:00", "١٢:00"] {
            check(&day, bad, "06:00", "Z", "from");
            check(&day, "06:00", bad, "Z", "to");
        }
        for bad in ["", "+", "02:00", "+14:01", "Europe/Rome", "ü02:00"] {
            check(&day, "22:00", "06:00", bad, "utc_offset");
        }
    }
}
