//! What a program that somebody runs in a container by hand may be. Server and agent judge it alike, so that nothing is
//! recorded as begun that the agent refuses.

use super::wire::{ExecQuery, TerminalSize};
use crate::{Result, error::Checks};

/// The most words of a command.
pub const MOST_COMMAND_WORDS: usize = 256;
/// The most bytes of all words of a command.
pub const MOST_COMMAND_BYTES: usize = 32 * 1024;
/// The longest name of a user, in bytes.
pub const LONGEST_EXEC_USER: usize = 256;
/// The longest path of a folder, in bytes.
pub const LONGEST_EXEC_FOLDER: usize = 4096;

impl ExecQuery {
    /// Makes sure that it can be run.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming what is wrong as the API does: `command`, `user`, `workdir`, `rows`, `cols`.
    pub fn check(&self) -> Result<()> {
        let mut checks = Checks::default();
        if let Some(reason) = self.fault_of_command() {
            checks.note("command", reason);
        }
        if let Some(reason) = fault_of_text(self.user.as_deref(), LONGEST_EXEC_USER) {
            checks.note("user", reason);
        }
        if let Some(reason) = fault_of_text(self.folder.as_deref(), LONGEST_EXEC_FOLDER) {
            checks.note("workdir", reason);
        } else if self.folder.as_ref().is_some_and(|folder| !folder.starts_with('/')) {
            checks.note("workdir", "must be an absolute path");
        }
        if let Some(TerminalSize { rows, columns }) = self.size {
            for (field, side) in [("rows", rows), ("cols", columns)] {
                if side == 0 {
                    checks.note(field, format!("must be from 1 to {}", u16::MAX));
                }
            }
        }
        checks.finish()
    }

    fn fault_of_command(&self) -> Option<String> {
        let bytes: usize = self.command.iter().map(String::len).sum();
        if self.command.first().is_none_or(String::is_empty) {
            Some("must name a program, and then its arguments, as in command=ls&command=-l".to_owned())
        } else if self.command.len() > MOST_COMMAND_WORDS || bytes > MOST_COMMAND_BYTES {
            Some(format!("must be at most {MOST_COMMAND_WORDS} words of together {MOST_COMMAND_BYTES} bytes"))
        } else if self.command.iter().any(|word| word.contains('\0')) {
            Some("must not contain NUL".to_owned())
        } else {
            None
        }
    }
}

fn fault_of_text(text: Option<&str>, most: usize) -> Option<String> {
    let good = |text: &str| !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
    let is_wrong = text.is_some_and(|text| !good(text));
    is_wrong.then(|| format!("must be 1 to {most} bytes without control characters"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, containers::EngineId};

    fn exec(command: &[&str]) -> ExecQuery {
        ExecQuery {
            engine_id: EngineId::parse("abc").unwrap(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            tty: false,
            user: None,
            folder: None,
            size: None,
        }
    }

    #[track_caller]
    fn check(exec: &ExecQuery, fields: &[&str]) {
        let found: Vec<String> = match exec.check() {
            Ok(()) => Vec::new(),
            Err(Error::Invalid { errors }) => errors.into_iter().map(|error| error.field).collect(),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, fields, "{exec:?}");
    }

    #[test]
    fn a_command_names_a_program_and_is_not_endless() {
        check(&exec(&["ls", "-l", ""]), &[]);
        check(&exec(&[]), &["command"]);
        check(&exec(&["", "x"]), &["command"]);
        check(&exec(&["echo", "a\0b"]), &["command"]);
        check(&exec(&["x"; 256]), &[]);
        check(&exec(&["x"; 257]), &["command"]);
        check(&exec(&["echo", &"x".repeat(MOST_COMMAND_BYTES - 4)]), &[]);
        check(&exec(&["echo", &"x".repeat(MOST_COMMAND_BYTES - 3)]), &["command"]);
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let user = Some("1000:1000".to_owned());
        let size = Some(TerminalSize { rows: 24, columns: 80 });
        check(&ExecQuery { user, folder: Some("/srv".to_owned()), size, ..exec(&["sh"]) }, &[]);
        let size = Some(TerminalSize { rows: 0, columns: 0 });
        let wrong = ExecQuery { user: Some(String::new()), folder: Some("srv".to_owned()), size, ..exec(&[]) };
        check(&wrong, &["command", "user", "workdir", "rows", "cols"]);
        let long = Some(format!("/{}", "x".repeat(LONGEST_EXEC_FOLDER)));
        check(&ExecQuery { user: Some("a\tb".to_owned()), folder: long, ..exec(&["sh"]) }, &["user", "workdir"]);
    }
}
