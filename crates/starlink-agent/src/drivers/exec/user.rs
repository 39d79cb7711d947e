//! Who work runs as.

use super::ExecOptions;
use crate::{shim::Identity, work::Failure};
use domain::scheduling::reason;
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use std::{
    ffi::CString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Who work runs as where the agent could run it as root, but may not.
const NOBODY: &str = "nobody";

/// Who work runs as.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Who {
    /// What the user is called.
    pub(super) name: String,
    /// Who the shim becomes; `None` if it stays who it is.
    pub(super) identity: Option<Identity>,
}

pub(super) fn resolve(options: &ExecOptions) -> Result<Who, Failure> {
    let own = geteuid();
    let name = match &options.exec_user {
        Some(name) => name,
        None if own.is_root() && !options.allow_root => NOBODY,
        None => return Ok(Who { name: name_of(own), identity: None }),
    };
    let failure = |error: &dyn std::fmt::Display| {
        Failure::new(reason::START_FAILED, format!("the user {name:?} that work is to run as: {error}"))
    };
    let user =
        User::from_name(name).map_err(|error| failure(&error))?.ok_or_else(|| failure(&"there is no such user"))?;
    if user.uid.is_root() && !options.allow_root {
        let detail = format!("{name:?} is root, and the owner of this server does not let work run as root");
        return Err(Failure::new(reason::NOT_ALLOWED, detail));
    }
    if user.uid == own && !own.is_root() {
        return Ok(Who { name: user.name, identity: None });
    }
    if !own.is_root() {
        let detail = format!("the agent runs as {:?}, so it cannot run work as {name:?}", name_of(own));
        return Err(Failure::new(reason::NOT_ALLOWED, detail));
    }
    let c_name = CString::new(user.name.as_str()).map_err(|error| failure(&error))?;
    let groups = getgrouplist(&c_name, user.gid).map_err(|error| failure(&error))?;
    let groups = groups.into_iter().map(Gid::as_raw).collect();
    let identity = Identity { name: user.name.clone(), uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups };
    Ok(Who { name: user.name, identity: Some(identity) })
}

/// The first folder above the works that the user that work runs as may not pass through.
pub(super) fn barrier(options: &ExecOptions) -> Option<PathBuf> {
    resolve(options).ok()?.identity?;
    let closed = |folder: &&Path| fs::metadata(folder).is_ok_and(|about| about.mode() & 0o001 == 0);
    options.root.ancestors().filter(closed).last().map(Path::to_owned)
}

fn name_of(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn options(exec_user: Option<&str>, allow_root: bool) -> ExecOptions {
        let exec_user = exec_user.map(str::to_owned);
        ExecOptions { exec_user, allow_root, ..ExecOptions::new(("shim".into(), Vec::new()), "/".into()) }
    }

    #[test]
    fn root_runs_work_as_somebody_else_unless_told_otherwise() {
        if !geteuid().is_root() {
            return;
        }
        let who = resolve(&options(None, false)).unwrap();
        let identity = who.identity.unwrap();
        assert_eq!((who.name.as_str(), identity.name.as_str()), ("nobody", "nobody"));
        assert!(identity.uid != 0 && !identity.groups.contains(&0), "{identity:?}");
        assert_eq!(resolve(&options(None, true)).unwrap(), Who { name: "root".to_owned(), identity: None });
        assert_eq!(resolve(&options(Some("daemon"), true)).unwrap().name, "daemon");
        assert_eq!(resolve(&options(Some("root"), false)).unwrap_err().reason, "not_allowed");
    }

    #[test]
    fn a_folder_that_keeps_work_from_its_own_is_found() {
        if !geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let closed = root.path().join("state");
        fs::create_dir_all(closed.join("work")).unwrap();
        for (mode, found) in [(0o711, None), (0o700, Some(closed.clone()))] {
            fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
            fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
            let options = ExecOptions { root: closed.join("work"), ..options(None, false) };
            assert_eq!(barrier(&options), found);
        }
        assert_eq!(barrier(&options(None, true)), None);
    }

    #[test]
    fn a_user_that_is_not_there_is_told() {
        let failure = resolve(&options(Some("no-such-user-here"), false)).unwrap_err();
        assert_eq!(failure.reason, "start_failed");
        assert!(
            failure.detail.contains("\"no-such-user-here\"") && failure.detail.contains("no such user"),
            "{failure}"
        );
    }
}
