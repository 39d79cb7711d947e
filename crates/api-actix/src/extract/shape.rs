//! What serde says about an input of the wrong shape, turned into the field and the reason.

use domain::FieldError;
use std::borrow::Cow;

/// Names the field at `path` (as `serde_path_to_error` writes it), or the one that `message` is about.
pub(super) fn field_error(path: &str, message: &str) -> FieldError {
    let path = match path {
        "." => "",
        path => path,
    };
    let message = without_position(message);
    for (start, reason) in [
        ("missing field `", "is required"),
        ("unknown field `", "is not known"),
        ("duplicate field `", "is given twice"),
    ] {
        if let Some((name, rest)) = message.strip_prefix(start).and_then(|rest| rest.split_once('`')) {
            return FieldError::new(below(path, name), format!("{reason}{rest}"));
        }
    }
    FieldError::new(path, format!("is not valid: {}", without_value(in_plain_words(message))))
}

/// What Rust says of numbers in a query string, and chrono of times anywhere, tells programmers, not callers.
fn in_plain_words(message: &str) -> &str {
    match message {
        "invalid digit found in string" => "a whole number is expected, in digits",
        "number too large to fit in target type" => "it is too large",
        "number too small to fit in target type" => "it is too small",
        // One message for each way in which chrono finds that a text is no time.
        "input contains invalid characters"
        | "premature end of input"
        | "trailing input"
        | "input is out of range"
        | "no possible date and time matching input"
        | "input is not enough for unique date and time" => "a time such as 2026-01-31T09:00:00Z is expected",
        other => other,
    }
}

/// What was sent is left out: it may be a password of the wrong type or in the wrong place, and reasons are logged.
fn without_value(message: &str) -> Cow<'_, str> {
    let value = message.find(['"', '`']).zip(message.rfind(", expected "));
    match value {
        Some((start, end)) if start < end => format!("{}{}", message[..start].trim_end(), &message[end..]).into(),
        _ => message.into(),
    }
}

/// The position is of use for malformed JSON only; where there is a field, the field says it better.
fn without_position(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |at| &message[..at])
}

/// The field `name` below `path`, which for an unknown field may already end with it.
fn below(path: &str, name: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or_default();
    if path.is_empty() || path == name {
        name.to_owned()
    } else if last == name {
        path.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use domain::{FieldError, clock::Timestamp};

    use super::field_error;

    #[test]
    fn the_message_names_the_field() {
        let check = |path: &str, message: &str, field: &str, reason: &str| {
            assert_eq!(field_error(path, message), FieldError::new(field, reason));
        };
        check(".", "missing field `name` at line 1 column 2", "name", "is required");
        check("quotas", "missing field `cpu`", "quotas.cpu", "is required");
        check("nam", "unknown field `nam`, expected `name` at line 1 column 6", "nam", "is not known, expected `name`");
        for (text, reason) in [
            ("-1", "is not valid: a whole number is expected, in digits"),
            ("1.5", "is not valid: a whole number is expected, in digits"),
            ("4294967296", "is not valid: it is too large"),
        ] {
            check("tail", &text.parse::<u32>().unwrap_err().to_string(), "tail", reason);
        }
        for text in
            ["", "yesterday", "2026-01-31", "2026-01-31T09:00:00", "2026-13-31T09:00:00Z", "2026-01-31T09:00:00ZZ"]
        {
            let message = text.parse::<Timestamp>().unwrap_err().to_string();
            check("since", &message, "since", "is not valid: a time such as 2026-01-31T09:00:00Z is expected");
        }
        check("n", &"-129".parse::<i8>().unwrap_err().to_string(), "n", "is not valid: it is too small");
        check(
            "a[0].b",
            "invalid type: string \"x\", expected i64 at line 1 column 9",
            "a[0].b",
            "is not valid: invalid type: string, expected i64",
        );
        check(
            "role",
            "unknown variant `hunter2`, expected one of `viewer`, `admin`",
            "role",
            "is not valid: unknown variant, expected one of `viewer`, `admin`",
        );
        check(
            "p",
            "invalid type: string \"a`, expected \", expected a map",
            "p",
            "is not valid: invalid type: string, expected a map",
        );
        check(
            "p",
            "invalid type: sequence, expected a string",
            "p",
            "is not valid: invalid type: sequence, expected a string",
        );
    }
}
