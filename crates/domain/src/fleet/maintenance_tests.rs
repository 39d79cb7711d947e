use super::*;
use crate::testing::{START, name};

/// So many minutes after the beginning.
fn at(minutes: i64) -> Timestamp {
    START + TimeDelta::minutes(minutes)
}

/// A window from minute 100 to minute 130.
fn planned() -> Window {
    let new = NewWindow { title: name("disks"), description: None, scheduled_for: at(100), duration_minutes: 30 };
    new.into_window(WindowId(7), ServerId(1), "user:alice".to_owned(), START)
}

fn running() -> Window {
    planned().begun(ServerStatus::Online, at(101))
}

fn completed() -> Window {
    running().ended(at(131))
}

fn missed() -> Window {
    planned().ended(at(500))
}

fn patch(status: WindowStatus) -> WindowPatch {
    WindowPatch { status: Some(status), ..WindowPatch::default() }
}

fn cancelled(window: &Window, minute: i64) -> Window {
    window.patched(patch(WindowStatus::Cancelled), at(minute)).unwrap()
}

#[test]
fn a_duration_is_from_a_minute_to_a_day() {
    for (minutes, expected) in [(1, Some(1)), (1440, Some(1440)), (0, None), (-1, None), (1441, None), (i64::MAX, None)]
    {
        assert_eq!(parse_duration_minutes(minutes).ok(), expected, "{minutes}");
    }
}

#[test]
fn a_window_takes_the_time_that_it_really_took() {
    let check = |window: &Window, expected: Option<(i64, i64)>| {
        let expected = expected.map(|(from, until)| Span { from: at(from), until: at(until) });
        assert_eq!(window.span(), expected, "{window:?}");
    };
    check(&planned(), Some((100, 130)));
    check(&running(), Some((101, 130)));
    check(&running().patched(patch(WindowStatus::Completed), at(110)).unwrap(), Some((101, 110)));
    check(&cancelled(&running(), 110), Some((101, 110)));
    check(&completed(), Some((101, 130)));
    check(&missed(), Some((100, 130)));
    check(&cancelled(&planned(), 50), None);
    let set_back = running().ended(at(20));
    check(&set_back, Some((101, 101)));
}

#[test]
fn times_that_only_touch_do_not_overlap() {
    let span = planned().span().unwrap();
    for (from, until, expected) in
        [(0, 100, false), (0, 101, true), (129, 200, true), (130, 200, false), (110, 111, true), (0, 200, true)]
    {
        assert_eq!(span.overlaps(at(from), at(until)), expected, "{from} to {until}");
    }
}

#[test]
fn only_a_missed_window_says_that_it_was() {
    assert!(missed().was_missed() && missed().note().is_some());
    for window in [planned(), running(), completed(), cancelled(&planned(), 1), cancelled(&running(), 110)] {
        assert!(!window.was_missed() && window.note().is_none(), "{window:?}");
    }
    assert_eq!((missed().started_at, missed().ended_at), (None, None));
}

/// Asks a window at some minute for a status, and looks what it becomes, or for a word of the refusal.
#[track_caller]
fn check_status(window: &Window, minute: i64, status: WindowStatus, expected: Result<WindowStatus, &str>) {
    match (window.patched(patch(status), at(minute)), expected) {
        (Ok(after), Ok(expected)) => {
            assert_eq!((after.status, after.revision), (expected, window.revision + 1));
            assert!(after.back_to.is_none() || after.is_in_progress());
        }
        (Err(Error::Conflict { code: "illegal_transition", reason }), Err(word)) => {
            assert!(reason.contains(word), "{reason}");
        }
        (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
    }
}

#[test]
fn a_window_is_called_off_or_ended_and_nothing_else() {
    use WindowStatus::{Cancelled, Completed, InProgress, Scheduled};
    check_status(&planned(), 50, Cancelled, Ok(Cancelled));
    check_status(&planned(), 50, Scheduled, Ok(Scheduled));
    check_status(&planned(), 50, Completed, Err("it has not begun"));
    check_status(&planned(), 50, InProgress, Err("begins by itself"));
    check_status(&running(), 110, Completed, Ok(Completed));
    check_status(&running(), 110, Cancelled, Ok(Cancelled));
    check_status(&running(), 110, InProgress, Ok(InProgress));
    check_status(&running(), 110, Scheduled, Err("it has begun"));
    check_status(&running(), 500, Cancelled, Ok(Cancelled));
    for over in [completed(), missed(), cancelled(&planned(), 50), cancelled(&running(), 110)] {
        for status in WindowStatus::ALL {
            let expected = if *status == over.status { Ok(*status) } else { Err("plan another window") };
            check_status(&over, 600, *status, expected);
        }
    }
}

/// Asks a window at some minute for a time and a duration; the field that is refused, or the code, if one is.
#[track_caller]
fn check_time(window: &Window, minute: i64, time: Option<i64>, minutes: Option<u32>, expected: Result<(), &str>) {
    let patch = WindowPatch { scheduled_for: time.map(at), duration_minutes: minutes, ..WindowPatch::default() };
    let refused = match window.patched(patch, at(minute)) {
        Ok(after) => {
            assert_eq!(after.scheduled_for, time.map_or(window.scheduled_for, at));
            assert_eq!(after.duration_minutes, minutes.unwrap_or(window.duration_minutes));
            Ok(())
        }
        Err(Error::Invalid { errors }) => Err(errors[0].field.clone()),
        Err(Error::Conflict { code, .. }) => Err(code.to_owned()),
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(refused, expected.map_err(str::to_owned));
}

#[test]
fn times_change_as_long_as_they_are_to_come() {
    check_time(&planned(), 50, Some(200), None, Ok(()));
    check_time(&planned(), 50, Some(40), None, Ok(()));
    check_time(&planned(), 50, Some(20), None, Err("scheduled_for"));
    check_time(&planned(), 50, Some(20), Some(31), Ok(()));
    check_time(&planned(), 50, Some(MAX_DAYS_AHEAD * 1440 + 51), None, Err("scheduled_for"));
    check_time(&planned(), 120, None, Some(20), Err("scheduled_for"));
    check_time(&running(), 110, None, Some(11), Ok(()));
    check_time(&running(), 110, None, Some(10), Err("duration_minutes"));
    check_time(&running(), 110, None, Some(1440), Ok(()));
    check_time(&running(), 110, Some(100), None, Ok(()));
    check_time(&running(), 110, Some(105), None, Err("illegal_transition"));
    for over in [completed(), missed(), cancelled(&running(), 110)] {
        check_time(&over, 600, None, Some(60), Err("illegal_transition"));
        check_time(&over, 600, Some(700), None, Err("illegal_transition"));
        check_time(&over, 600, Some(100), Some(30), Ok(()));
    }
}

#[test]
fn title_and_description_can_always_be_put_right() {
    let note = WindowPatch {
        title: Some(name("new disks")),
        description: Patch::Set("two were dead".to_owned()),
        ..WindowPatch::default()
    };
    for window in [planned(), running(), completed(), missed(), cancelled(&planned(), 50)] {
        let after = window.patched(note.clone(), at(600)).unwrap();
        let expected = Window {
            title: name("new disks"),
            description: Some("two were dead".to_owned()),
            revision: window.revision + 1,
            updated_at: at(600),
            ..window
        };
        assert_eq!(after, expected);
    }
}

#[test]
fn a_new_window_may_have_begun_but_not_ended() {
    let new = |scheduled_for, duration_minutes| {
        NewWindow { title: name("disks"), description: None, scheduled_for, duration_minutes }.check(at(100))
    };
    for (from, minutes, good) in [(100, 1, true), (70, 31, true), (70, 30, false), (200, 1440, true), (0, 1, false)] {
        assert_eq!(new(at(from), minutes).is_ok(), good, "{from} for {minutes}");
    }
    assert!(new(Timestamp::MAX_UTC, 1440).is_err() && new(Timestamp::MIN_UTC, 1440).is_err());
}
