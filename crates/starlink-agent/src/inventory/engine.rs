//! What the container engine says of itself and its machine.

use crate::drivers::docker::{Engine, OLDEST_API};
use std::{path::PathBuf, time::Duration};

/// How long an engine may take over an answer until it counts as not there.
const PATIENCE: Duration = Duration::from_secs(5);

/// What it answered.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Of `/info`: what it calls the machine's architecture.
    info_word: Option<String>,
    /// Of `/version`: what it is compiled for.
    version_word: Option<String>,
    api: Option<String>,
    platform: Option<String>,
    /// Where it keeps its images and containers.
    pub(super) data_root: Option<PathBuf>,
    /// What it calls the machine's operating system.
    pub(super) os: Option<String>,
}

impl Answers {
    pub(super) fn info_word(&self) -> Option<&str> {
        self.info_word.as_deref()
    }

    pub(super) fn version_word(&self) -> Option<&str> {
        self.version_word.as_deref()
    }

    /// Whether the docker driver can work with it.
    pub(super) fn is_usable(&self) -> bool {
        let api = self.api.as_deref().and_then(api_version);
        api.is_some_and(|api| api >= OLDEST_API) && self.platform.as_deref().is_none_or(|platform| platform == "linux")
    }
}

/// Asks it; `None` if it does not answer.
pub(super) async fn ask(engine: &Engine) -> Option<Answers> {
    let client = engine.client(PATIENCE).ok()?;
    let questions = async {
        client.ping().await.ok()?;
        let version = client.version().await.ok()?;
        // It is the slowest of the three, and the least needed.
        let info = client.info().await.unwrap_or_default();
        Some(Answers {
            info_word: word(info.architecture),
            version_word: word(version.arch),
            api: word(version.api_version),
            platform: word(version.os),
            data_root: word(info.docker_root_dir).map(PathBuf::from),
            os: word(info.operating_system),
        })
    };
    tokio::time::timeout(3 * PATIENCE, questions).await.ok()?
}

fn word(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn api_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(api: Option<&str>, platform: Option<&str>, expected: bool) {
        let answers =
            Answers { api: api.map(str::to_owned), platform: platform.map(str::to_owned), ..Answers::default() };
        assert_eq!(answers.is_usable(), expected, "{answers:?}");
    }

    #[test]
    fn only_engines_that_the_driver_can_work_with_count() {
        check(Some("1.41"), Some("linux"), true);
        check(Some("1.52"), Some("linux"), true);
        check(Some("2.0"), None, true);
        check(Some("1.40"), Some("linux"), false);
        check(Some("1.5"), Some("linux"), false);
        check(Some("1.43"), Some("windows"), false);
        check(Some("new"), Some("linux"), false);
        check(None, Some("linux"), false);
    }
}
