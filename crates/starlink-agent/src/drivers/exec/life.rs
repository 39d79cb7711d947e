//! Whether a shim lives: it holds a pipe open that is closed with its last breath, whatever ends it.

use nix::fcntl::OFlag;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};
use tokio::{net::unix::pipe::Receiver, time::sleep};

/// How often to look where the kernel cannot tell.
const LOOK: Duration = Duration::from_millis(500);

/// Whether a shim holds this pipe open.
///
/// # Errors
/// What the kernel says, if it cannot be told.
pub(super) fn is_there(life: &Path) -> io::Result<bool> {
    match open(life) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        pipe => is_held(&mut pipe?),
    }
}

/// Returns once no shim holds this pipe open; at once, if none does.
pub(super) async fn ended(life: &Path) {
    loop {
        let seen = match open(life) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Ok(pipe) => end_of(pipe).await,
            Err(error) => Err(error),
        };
        if seen.is_ok() {
            return;
        }
        // Such as that the agent has too many files open: no reason to believe anything.
        sleep(LOOK).await;
    }
}

async fn end_of(mut pipe: File) -> io::Result<()> {
    // Looked at before it is waited for: an end before now is not told.
    if !is_held(&mut pipe)? {
        return Ok(());
    }
    let pipe = Receiver::from_file(pipe)?;
    loop {
        pipe.readable().await?;
        match pipe.try_read(&mut [0; 16]) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

fn open(life: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(life)
}

fn is_held(pipe: &mut File) -> io::Result<bool> {
    match pipe.read(&mut [0; 16]) {
        Ok(read) => Ok(read > 0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}
