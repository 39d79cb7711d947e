//! Commands that run to their end.

use std::{path::Path, time::Duration};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a command ended and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Finished {
    /// The result itself if it has this exit code.
    ///
    /// # Panics
    /// If it has not; shows what was printed.
    #[track_caller]
    #[expect(
        clippy::return_self_not_must_use,
        clippy::must_use_candidate,
        reason = "often the code is all that a test wants"
    )]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// Everything that it printed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// Runs a command to its end; a test can go on with other work meanwhile.
///
/// # Panics
/// If it cannot be started, or does not end within a minute, which ends it.
pub async fn run(program: impl AsRef<Path>, arguments: &[&str]) -> Finished {
    let program = program.as_ref();
    let output = tokio::process::Command::new(program).args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await;
    let output = output.unwrap_or_else(|_| panic!("{} {arguments:?} does not end", program.display()));
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Finished { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}
