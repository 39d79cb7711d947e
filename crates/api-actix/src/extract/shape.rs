//! What serde says about an input of the wrong shape, turned into the field and the reason.

use domain::FieldError;

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
    FieldError::new(path, format!("is not valid: {message}"))
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
    use domain::FieldError;

    use super::field_error;

    #[test]
    fn the_message_names_the_field() {
        let check = |path: &str, message: &str, field: &str, reason: &str| {
            assert_eq!(field_error(path, message), FieldError::new(field, reason));
        };
        check(".", "missing field `name` at line 1 column 2", "name", "is required");
        check("quotas", "missing field `cpu`", "quotas.cpu", "is required");
        check("nam", "unknown field `nam`, expected `name` at line 1 column 6", "nam", "is not known, expected `name`");
        check(
            "a[0].b",
            "invalid type: string \"x\", expected i64 at line 1 column 9",
            "a[0].b",
            "is not valid: invalid type: string \"x\", expected i64",
        );
    }
}
