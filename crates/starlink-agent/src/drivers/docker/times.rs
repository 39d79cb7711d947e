//! What is remembered of a container's runs besides what the engine and the log tell: it knows only of the last two.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const FILE: &str = "container.json";

/// When a container ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Times {
    /// When it was started for the first time.
    #[serde(default)]
    pub(super) first: Option<DateTime<Utc>>,
    /// When the run began that the log has a mark for, unless it is the first one.
    #[serde(default)]
    pub(super) run: Option<DateTime<Utc>>,
}

impl Times {
    /// What was remembered in the folder of some work; nothing, if there is none or it was torn.
    pub(super) fn load(folder: &Path) -> Self {
        let bytes = fs::read(file(folder)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub(super) fn save(self, folder: &Path) -> io::Result<()> {
        let new = folder.join("container.json.new");
        fs::write(&new, serde_json::to_vec(&self)?)?;
        fs::rename(new, file(folder))
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_and_a_torn_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Times::load(folder.path()), Times::default());
        let times = Times { first: Some(DateTime::from_timestamp_nanos(1)), run: None };
        times.save(folder.path()).unwrap();
        assert_eq!(Times::load(folder.path()), times);
        fs::write(file(folder.path()), "{\"first\":\"20").unwrap();
        assert_eq!(Times::load(folder.path()), Times::default());
    }
}
