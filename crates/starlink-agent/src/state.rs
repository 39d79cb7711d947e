//! The state directory: what an agent keeps on its machine.
//!
//! Invariants: one process at a time uses it; whoever is not its owner cannot read it; a file in it is complete or
//! absent; the file that holds the token tells the directory apart from a copy of it.

pub(crate) mod lines;

use crate::work::WorkId;
use domain::{digest::sha256_hex, identity::Secret, ids::ServerId, text::Name};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What tells machines apart, where there is such a file.
const MACHINE_ID: &str = "/etc/machine-id";

/// Why the state directory or a file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is not there and could not be made.
    #[error(
        "cannot create the state directory {} (create it for the user that runs the agent, or choose another one with \
         --state-dir)", path.display()
    )]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds it.
    #[error(
        "the state directory {} is in use by process {holder}: stop that agent first, or choose another directory with \
         --state-dir", path.display()
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
    /// The file is not what the agent wrote.
    #[error("{} is damaged; restore it from a backup, or remove the directory and join again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What an agent knows of the server that it joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The address that it joined at.
    pub url: String,
    /// The server that this machine is there.
    pub server_id: ServerId,
    /// What that is called.
    #[serde(default)]
    pub name: Option<Name>,
    /// The installation, once a session told it.
    #[serde(default)]
    pub installation: Option<String>,
    /// Where the directory was when a session was opened last, see [`StateDir::place`].
    #[serde(default)]
    pub place: Option<String>,
}

/// The state directory. It exists, and is this process's until the last clone is gone.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: Arc<Path>,
    _lock: Arc<File>,
}

impl StateDir {
    /// The directory at `path`, made for its owner alone if it is not there.
    ///
    /// # Errors
    /// [`StateError::Create`], and [`StateError::InUse`] if another process holds it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let error = |source| StateError::Create { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error)?;
        // Drivers hand paths in it to others, who have another working directory.
        let path = fs::canonicalize(path).map_err(error)?;
        let mode = fs::metadata(&path).map_err(error)?.permissions().mode() & 0o777;
        if mode & 0o022 != 0 {
            let path = path.display();
            tracing::warn!(
                mode = format!("{mode:o}"),
                "others can write into the state directory {path}: run chmod go-w {path}"
            );
        }
        let state = Self { _lock: Arc::new(lock(&path)?), path: path.into() };
        let works = state.works();
        DirBuilder::new().recursive(true).mode(0o700).create(&works).map_err(error)?;
        Ok(state)
    }

    /// Lets others pass through to the folders of works, as programs of another user have to. They cannot list it, nor
    /// read what is in it.
    ///
    /// # Errors
    /// [`StateError::File`]
    pub fn let_through(&self) -> Result<(), StateError> {
        for path in [self.path.to_path_buf(), self.works()] {
            let error = |source| StateError::File { action: "change the mode of", path: path.clone(), source };
            let mode = fs::metadata(&path).map_err(error)?.permissions().mode() & 0o7777;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o011)).map_err(error)?;
        }
        Ok(())
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

    /// The agent's own token; `None` if it has not joined.
    ///
    /// # Errors
    /// [`StateError::Exposed`], and [`StateError::File`] if it cannot be read.
    pub fn token(&self) -> Result<Option<Secret>, StateError> {
        let text = read_secret(&self.join("token"))?;
        Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).map(Secret::from))
    }

    /// A file for a token that is still to come. It tells already where the token will be, and is the same one when
    /// joining is tried again, so that the server can tell a repetition from another machine.
    ///
    /// # Errors
    /// [`StateError::File`]
    pub fn prepare_token(&self) -> Result<TokenFile, StateError> {
        let path = self.join("token.new");
        let error = |source| StateError::File { action: "write", path: path.clone(), source };
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(error)?;
        let place = place_of(&file.metadata().map_err(error)?);
        Ok(TokenFile { file, path, place, kept: self.join("token") })
    }

    /// Tells this directory apart from a copy of it; the same after a restart.
    ///
    /// # Errors
    /// [`StateError::File`], if there is no token.
    pub fn place(&self) -> Result<String, StateError> {
        let path = self.join("token");
        let metadata = fs::metadata(&path).map_err(|source| StateError::File { action: "read", path, source })?;
        Ok(place_of(&metadata))
    }

    /// What is known of the server that was joined.
    ///
    /// # Errors
    /// [`StateError::Damaged`] and [`StateError::File`]
    pub fn joined(&self) -> Result<Option<Joined>, StateError> {
        self.read_json("server.json")
    }

    /// Keeps that.
    ///
    /// # Errors
    /// [`StateError::File`]
    pub fn keep_joined(&self, joined: &Joined) -> Result<(), StateError> {
        self.write_json("server.json", joined)
    }

    /// What a file that [`StateDir::write_json`] wrote holds; `None` if there is none.
    ///
    /// # Errors
    /// [`StateError::Damaged`] and [`StateError::File`]
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.join(name);
        let Some(text) = read(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|source| StateError::Damaged { path, source })
    }

    /// Writes a file that only the owner can read; durable when this returns.
    ///
    /// # Errors
    /// [`StateError::File`]
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), StateError> {
        let path = self.join(name);
        let error = |source| StateError::File { action: "write", path: path.clone(), source };
        let text = serde_json::to_vec_pretty(value).map_err(|fault| error(fault.into()))?;
        replace(&path, |file| file.write_all(&text)).map_err(error)
    }

    /// Where the folders of works are.
    #[must_use]
    pub fn works(&self) -> PathBuf {
        self.join("work")
    }

    /// The folder of a piece of work; it need not be there.
    #[must_use]
    pub fn work_folder(&self, work: &WorkId) -> PathBuf {
        self.works().join(work.to_string())
    }
}

/// A file that waits for its token.
#[derive(Debug)]
pub struct TokenFile {
    file: File,
    path: PathBuf,
    kept: PathBuf,
    /// See [`StateDir::place`].
    pub place: String,
}

impl TokenFile {
    /// Takes the token; durable when this returns.
    ///
    /// # Errors
    /// [`StateError::File`]
    pub fn keep(mut self, token: &Secret) -> Result<(), StateError> {
        let written = writeln!(self.file, "{}", token.expose())
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::rename(&self.path, &self.kept))
            .and_then(|()| sync_parent(&self.kept));
        written.map_err(|source| StateError::File { action: "write", path: self.kept, source })
    }
}

fn lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join("lock");
    let error = |source| StateError::File { action: "lock", path: path.clone(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(directory, &mut file)),
        Err(TryLockError::Error(source)) => return Err(error(source)),
    }
    // The number is for people; a full disk must not keep an agent from attending to what runs.
    let numbered = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = numbered {
        tracing::warn!(%error, "the number of this process could not be written into {}", path.display());
    }
    Ok(file)
}

fn in_use(directory: &Path, file: &mut File) -> StateError {
    let mut holder = String::new();
    // The holder may just be about to write its number.
    let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
    let holder = if known { holder.trim().to_owned() } else { "(unknown)".to_owned() };
    StateError::InUse { path: directory.to_owned(), holder }
}

fn place_of(token: &fs::Metadata) -> String {
    // Where there is none, device and inode have to do.
    let machine = fs::read_to_string(MACHINE_ID).unwrap_or_default();
    sha256_hex(format!("{}:{}:{}", machine.trim(), token.dev(), token.ino()).as_bytes())
}

fn read(path: &Path) -> Result<Option<String>, StateError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::File { action: "read", path: path.to_owned(), source }),
    }
}

/// The text of a file that nobody but its owner may read.
///
/// # Errors
/// [`StateError::Exposed`] if others may, and [`StateError::File`].
pub fn read_secret(path: &Path) -> Result<Option<String>, StateError> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::File { action: "read", path: path.to_owned(), source }),
    };
    if mode & 0o077 != 0 {
        return Err(StateError::Exposed { path: path.to_owned(), mode });
    }
    read(path)
}

/// Replaces a file by what `write` writes, all of it or not at all; durable when this returns.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    renamed(path, write)?;
    sync_parent(path)
}

/// Writes a file beside `path` and gives it that name. It is complete; its name is durable after [`sync_parent`].
pub(crate) fn renamed(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let unfinished = path.with_extension("tmp");
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    let written = write(&mut file).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = written {
        // What is left of it would take room on a disk that may be full; it is replaced next time otherwise.
        fs::remove_file(&unfinished).ok();
        return Err(error);
    }
    Ok(file)
}

/// Makes a new name in the directory of `path` survive a loss of power.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
