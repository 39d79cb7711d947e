//! The directory of what the server keeps beside the database: the lock, keys, and the first token.
//!
//! Invariants: one server at a time holds the directory; a secret file is complete or absent, and only its owner can
//! read it; a key that exists is never overwritten.

use domain::{digest::hex, entropy::Entropy, identity::Secret};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// Why the data directory or a file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It is not there and could not be made.
    #[error(
        "cannot create the data directory {} (create it for the user that runs the server, or choose another one with \
         --data-dir)", path.display()
    )]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds it.
    #[error(
        "the data directory {} is in use by process {holder}: stop that process first, or choose another directory \
         with --data-dir", path.display()
    )]
    InUse {
        /// Which.
        path: PathBuf,
        /// The process, as it numbers itself; in a container that may be another number than outside.
        holder: String,
    },
    /// Others than the owner may read a secret.
    #[error(
        "{} holds a secret, but others than its owner can use it (mode {mode:o}): run chmod 600 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is not a key.
    #[error(
        "{} does not hold a key: 64 hexadecimal digits are expected; restore the file from a backup, since a new key \
         cannot check what the old one sealed", path.display()
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write` or `lock`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The data directory. It exists.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// The directory at `path`, made for its owner alone if it is not there.
    ///
    /// # Errors
    /// [`DataDirError::Create`]
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let error = |source| DataDirError::Create { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error)?;
        let mode = fs::metadata(path).map_err(error)?.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            let path = path.display();
            tracing::warn!(
                mode = format!("{mode:o}"),
                "others can enter the data directory {path}: run chmod o= {path}"
            );
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file called `name` in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Keeps every other process out until the lock is dropped or the process ends, however it ends.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] if another process holds it.
    pub fn lock(&self) -> Result<DataDirLock, DataDirError> {
        let path = self.join("lock");
        let error = |source| DataDirError::File { action: "lock", path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(self.in_use(&mut file)),
            Err(TryLockError::Error(source)) => return Err(error(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(error)?;
        writeln!(file, "{}", std::process::id()).and_then(|()| file.sync_all()).map_err(error)?;
        Ok(DataDirLock { _file: file })
    }

    fn in_use(&self, file: &mut File) -> DataDirError {
        let mut holder = String::new();
        // The holder may just be about to write its number.
        let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
        let holder = if known { holder.trim().to_owned() } else { "(unknown)".to_owned() };
        DataDirError::InUse { path: self.path.clone(), holder }
    }

    /// Leaves the first administrator's token where only the owner of the directory finds it.
    ///
    /// # Errors
    /// [`DataDirError::File`]
    pub fn write_admin_token(&self, token: &Secret) -> Result<PathBuf, DataDirError> {
        let path = self.join("admin.token");
        write_secret(&path, format!("{}\n", token.expose()).as_bytes())?;
        Ok(path)
    }
}

/// The hold on a data directory; dropped, it lets go.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// Writes a file that only its owner can read. It is durable and complete when this returns; what was there is
/// replaced, and stays as it was if this fails.
///
/// # Errors
/// [`DataDirError::File`]
pub fn write_secret(path: &Path, content: &[u8]) -> Result<(), DataDirError> {
    let error = |source| DataDirError::File { action: "write", path: path.to_owned(), source };
    let file = temporary(path, content).map_err(error)?;
    file.persist(path).map_err(|failed| error(failed.error))?;
    sync_parent(path).map_err(error)
}

/// A complete and durable file beside `path`, which goes away unless it is given its name.
fn temporary(path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".starlink-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(parent(path))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Makes a new name in the directory of `path` survive a loss of power.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A key of 256 bits that lives in a file.
#[derive(Clone, PartialEq, Eq)]
pub struct FileKey {
    /// The key.
    pub bytes: [u8; 32],
    /// Whether it was there before.
    pub origin: KeyOrigin,
}

impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileKey").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Whether a key is an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrigin {
    /// It was in the file already.
    Found,
    /// It was made just now: what an earlier key sealed cannot be checked with it.
    Created,
}

/// The key in the file at `path`, or a new one that is there when this returns.
///
/// # Errors
/// [`DataDirError::Exposed`] and [`DataDirError::NotAKey`] if there is a file that cannot be trusted.
pub fn read_or_create_key(path: &Path, entropy: &dyn Entropy) -> Result<FileKey, DataDirError> {
    if let Some(bytes) = read_key(path)? {
        return Ok(FileKey { bytes, origin: KeyOrigin::Found });
    }
    let error = |source| DataDirError::File { action: "write", path: path.to_owned(), source };
    let bytes = entropy.bytes();
    let file = temporary(path, format!("{}\n", hex(&bytes)).as_bytes()).map_err(error)?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        // Another process was faster: its key is the one.
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => {
            let theirs = read_key(path)?.ok_or_else(|| error(failed.error))?;
            return Ok(FileKey { bytes: theirs, origin: KeyOrigin::Found });
        }
        Err(failed) => return Err(error(failed.error)),
    }
    sync_parent(path).map_err(error)?;
    Ok(FileKey { bytes, origin: KeyOrigin::Created })
}

/// The key in the file at `path`; `None` if there is no file.
///
/// # Errors
/// [`DataDirError::Exposed`] and [`DataDirError::NotAKey`] if there is a file that cannot be trusted.
pub fn read_key(path: &Path) -> Result<Option<[u8; 32]>, DataDirError> {
    let error = |source| DataDirError::File { action: "read", path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(other) => return Err(error(other)),
    };
    let mode = file.metadata().map_err(error)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(DataDirError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(error)?;
    unhex(text.trim_ascii()).map(Some).ok_or_else(|| DataDirError::NotAKey { path: path.to_owned() })
}

fn unhex(digits: &[u8]) -> Option<[u8; 32]> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let byte = |[high, low]: &[u8; 2]| {
        let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
        u8::try_from(value).ok()
    };
    pairs.iter().map(byte).collect::<Option<Vec<u8>>>()?.try_into().ok()
}

#[cfg(test)]
#[path = "data_dir_tests.rs"]
mod tests;
