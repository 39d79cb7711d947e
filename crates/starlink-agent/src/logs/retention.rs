//! How long logs are kept.

use super::{FINISHED, folder};
use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

/// How long the log of finished work is kept unless the machine's owner says otherwise.
pub const KEEP_FOR: Duration = Duration::from_hours(7 * 24);

/// Removes the logs that were finished longer ago than that, each with its folder if nothing else is in it. `root` has a
/// folder for each work. Tells how many were removed; one that cannot be removed does not keep the others.
///
/// # Errors
/// What the disk says to a look into `root`, or to the last log that could not be removed.
pub fn prune(root: &Path, keep_for: Duration, now: SystemTime) -> io::Result<usize> {
    let (mut removed, mut failure) = (0, None);
    for entry in fs::read_dir(root)? {
        let work_folder = entry?.path();
        let log = folder(&work_folder);
        let Ok(finished) = fs::metadata(log.join(FINISHED)).and_then(|finished| finished.modified()) else { continue };
        if now.duration_since(finished).is_ok_and(|age| age > keep_for) {
            match fs::remove_dir_all(&log) {
                Ok(()) => removed += 1,
                Err(error) => failure = Some(error),
            }
            // What its driver has not removed stays.
            let _ = fs::remove_dir(&work_folder);
        }
    }
    failure.map_or(Ok(removed), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::finish;
    use std::fs::File;

    #[test]
    fn logs_go_some_days_after_their_end() {
        let root = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let work = |name: &str, finished_days_ago: Option<u64>| {
            let folder = root.path().join(name);
            fs::create_dir_all(folder.join("log")).unwrap();
            if let Some(days) = finished_days_ago {
                finish(&folder).unwrap();
                let file = File::open(folder.join("log/finished")).unwrap();
                file.set_modified(now - Duration::from_secs(days * 24 * 60 * 60 + 1)).unwrap();
            }
            folder
        };
        let (old, young, running) = (work("old", Some(7)), work("young", Some(6)), work("running", None));
        let kept_by_driver = work("kept", Some(8));
        fs::write(kept_by_driver.join("exit.json"), "{}").unwrap();
        fs::write(root.path().join("a-file"), "").unwrap();

        assert_eq!(prune(root.path(), KEEP_FOR, now).unwrap(), 2);
        assert!(!old.exists() && young.join("log").exists() && running.join("log").exists());
        assert!(kept_by_driver.join("exit.json").exists() && !kept_by_driver.join("log").exists());
        assert_eq!(prune(root.path(), KEEP_FOR, now).unwrap(), 0);
    }
}
