//! What containers may see of the machine's files: what its owner allowed, and volumes.

use crate::work::Failure;
use bollard::models::{Mount, MountType};
use domain::scheduling::{self, reason};
use std::{
    io::ErrorKind,
    path::{Component, Path, PathBuf},
};

/// The longest name of a volume.
const LONGEST_NAME: usize = 255;

/// The engine's words for these mounts.
///
/// What is handed to the engine is the path that symbolic links lead to, since that is what was found to be allowed. Who
/// may write to an allowed folder could still put a link in its place before the engine looks.
///
/// # Errors
/// `not_allowed`, naming the path, unless it is within a folder of `allowed`.
pub(super) fn resolve(mounts: &[scheduling::Mount], allowed: &[PathBuf]) -> Result<Vec<Mount>, Failure> {
    mounts.iter().map(|mount| resolve_one(mount, allowed)).collect()
}

fn resolve_one(mount: &scheduling::Mount, allowed: &[PathBuf]) -> Result<Mount, Failure> {
    let (typ, source) = if mount.source.starts_with('/') {
        (MountType::BIND, allowed_path(Path::new(&mount.source), allowed)?)
    } else if is_volume_name(&mount.source) {
        (MountType::VOLUME, mount.source.clone())
    } else {
        let detail = format!("{:?} is neither an absolute path nor the name of a volume", mount.source);
        return Err(Failure::new(reason::NOT_ALLOWED, detail));
    };
    Ok(Mount {
        typ: Some(typ),
        source: Some(source),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Mount::default()
    })
}

fn is_volume_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
}

fn allowed_path(source: &Path, allowed: &[PathBuf]) -> Result<String, Failure> {
    let refused = |what: String| {
        let detail = format!(
            "{what} may not be mounted: the owner of this server can allow it with --allow-mount {}",
            source.display()
        );
        Failure::new(reason::NOT_ALLOWED, detail)
    };
    let plain = || refused(source.display().to_string());
    // What is not there must not tell itself apart from what is, outside of what is allowed.
    let named = allowed.iter().any(|folder| source.starts_with(folder));
    if source.components().any(|part| part == Component::ParentDir) {
        return Err(plain());
    }
    let real = match source.canonicalize() {
        Err(error) if named && error.kind() == ErrorKind::NotFound => {
            let detail = format!("{} is to be mounted, and there is no such file or folder", source.display());
            return Err(Failure::new(reason::START_FAILED, detail));
        }
        real => real.map_err(|_hidden| plain())?,
    };
    if !allowed.iter().filter_map(|folder| folder.canonicalize().ok()).any(|folder| real.starts_with(folder)) {
        let what = if named && real != source {
            format!("{} leads to {}, which", source.display(), real.display())
        } else {
            source.display().to_string()
        };
        return Err(refused(what));
    }
    real.into_os_string().into_string().map_err(|_not_unicode| plain())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn mount(source: &str) -> scheduling::Mount {
        scheduling::Mount { source: source.to_owned(), target: "/data".to_owned(), read_only: true }
    }

    /// A folder with `allowed/inside`, `outside`, and links to both of them in `allowed`.
    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let path = |name: &str| tree.path().join(name);
        fs::create_dir_all(path("allowed/inside")).unwrap();
        fs::create_dir_all(path("outside/file")).unwrap();
        symlink(path("outside"), path("allowed/out")).unwrap();
        symlink(path("allowed/inside"), path("allowed/in")).unwrap();
        symlink(path("allowed/inside"), path("link")).unwrap();
        tree
    }

    fn check(tree: &tempfile::TempDir, source: &str, expected: Result<&str, &str>) {
        let real = tree.path().canonicalize().unwrap();
        let source = source.replace('~', real.to_str().unwrap());
        let allowed = [real.join("allowed")];
        let answer = resolve(&[mount(&source)], &allowed);
        match (answer, expected) {
            (Ok(mounts), Ok(path)) => {
                let path = path.replace('~', real.to_str().unwrap());
                assert_eq!(mounts[0].source.as_deref(), Some(path.as_str()));
                assert_eq!((mounts[0].target.as_deref(), mounts[0].read_only), (Some("/data"), Some(true)));
            }
            (Err(failure), Err(reason)) => {
                assert_eq!(failure.reason, reason, "{failure}");
                assert!(failure.detail.contains(&source), "{failure}");
            }
            (answer, expected) => panic!("{source}: {answer:?}, and not {expected:?}"),
        }
    }

    #[test]
    fn only_what_lies_within_an_allowed_folder_is_mounted() {
        let tree = tree();
        check(&tree, "~/allowed", Ok("~/allowed"));
        check(&tree, "~/allowed/inside", Ok("~/allowed/inside"));
        check(&tree, "~/allowed/./inside/", Ok("~/allowed/inside"));
        check(&tree, "~/allowed/in", Ok("~/allowed/inside"));
        check(&tree, "~/link", Ok("~/allowed/inside"));
        check(&tree, "~/outside", Err("not_allowed"));
        check(&tree, "~/allowed/out", Err("not_allowed"));
        check(&tree, "~/allowed/out/file", Err("not_allowed"));
        check(&tree, "~/allowed/../outside", Err("not_allowed"));
        check(&tree, "~/allowed/inside/../../outside", Err("not_allowed"));
        check(&tree, "~/allowedly", Err("not_allowed"));
        check(&tree, "/", Err("not_allowed"));
        check(&tree, "/etc/shadow", Err("not_allowed"));
    }

    #[test]
    fn what_is_not_there_is_told_only_where_it_may_be_known() {
        let tree = tree();
        check(&tree, "~/allowed/nothing", Err("start_failed"));
        check(&tree, "~/outside/nothing", Err("not_allowed"));
    }

    #[test]
    fn volumes_go_by_their_names() {
        let tree = tree();
        check(&tree, "cache", Ok("cache"));
        check(&tree, "a.b-c_1", Ok("a.b-c_1"));
        for source in ["../x", "a/b", ".hidden", "a b", "-x", "ü"] {
            let failure = resolve(&[mount(source)], &[]).unwrap_err();
            assert_eq!(failure.reason, "not_allowed", "{failure}");
        }
    }
}
