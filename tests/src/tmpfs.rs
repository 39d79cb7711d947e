//! A small disk in memory, which can be filled.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// A mounted disk; it goes with the value.
pub struct Tmpfs {
    directory: TempDir,
}

impl Tmpfs {
    /// Mounts one of this many MiB; or says why it cannot.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn mount(mib: u32) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let options = format!("size={mib}m,mode=0700");
        let mut command = Command::new("mount");
        let output = command.args(["-t", "tmpfs", "-o", &options, "starlink-test"]).arg(directory.path()).output();
        let output = output.map_err(|error| format!("mount: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self { directory })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file until nothing more fits; remove it to make room.
    ///
    /// # Panics
    /// If the disk does not get full.
    #[must_use]
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = std::fs::File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let block = [0; 4096];
        for _ in 0..1_000_000 {
            if file.write_all(&block).is_err() {
                return path;
            }
        }
        panic!("{} does not get full", path.display());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, because a process that is just being killed may still have a file open.
        let _ = Command::new("umount").arg("--lazy").arg(self.directory.path()).output();
    }
}
