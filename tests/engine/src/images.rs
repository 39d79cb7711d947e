//! Images made from scratch: no registry is to be had, and none is meant by their names (RFC 6761).

use super::{
    Engine,
    manifests::{self, Content},
};
use bollard::{body_full, query_parameters::ImportImageOptions};
use futures_util::TryStreamExt;
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

/// Busybox for this machine; runs a shell unless told otherwise.
pub const BUSYBOX: &str = "starlink-test.invalid/busybox:1";
/// Says that it is for another architecture.
pub const FOREIGN: &str = "starlink-test.invalid/foreign:1";
/// Says that it is for this machine, and its only program is for another one.
pub const LYING: &str = "starlink-test.invalid/lying:1";
/// All of them.
pub const ALL: [&str; 3] = [BUSYBOX, FOREIGN, LYING];

const APPLETS: [&str; 21] = [
    "sh", "sleep", "echo", "cat", "ls", "nc", "id", "dd", "yes", "head", "tail", "kill", "true", "false", "touch",
    "seq", "date", "printf", "rm", "mkdir", "tr",
];
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Where an ELF file says what it is compiled for.
const MACHINE: std::ops::Range<usize> = 18..20;

/// What engines call this machine's architecture, and another one with its number in ELF files.
#[must_use]
pub fn architectures() -> (&'static str, &'static str, u16) {
    match std::env::consts::ARCH {
        "x86_64" => ("amd64", "arm64", 183),
        "aarch64" => ("arm64", "riscv64", 243),
        other => (other, "amd64", 62),
    }
}

/// Puts those of these names into an engine.
pub(crate) fn load(engine: &Engine, names: &[&str]) {
    let archives: Vec<Vec<u8>> = names.iter().map(|name| image(name)).collect();
    let socket = engine.socket();
    super::apart(async move {
        let client = super::client(&socket);
        for archive in archives {
            let options = ImportImageOptions::default();
            client.import_image(options, body_full(archive.into()), None).try_collect::<Vec<_>>().await.unwrap();
        }
    });
}

fn image(name: &str) -> Vec<u8> {
    let (native, foreign, machine) = architectures();
    let mut busybox = fs::read(which("busybox")).unwrap();
    match name {
        BUSYBOX => archive(name, native, &busybox, &["/bin/sh"]),
        FOREIGN => archive(name, foreign, &busybox, &["/bin/sh"]),
        LYING => {
            busybox[MACHINE].copy_from_slice(&machine.to_le_bytes());
            archive(name, native, &busybox, &["/bin/busybox", "true"])
        }
        other => panic!("there is no image {other}"),
    }
}

fn which(program: &str) -> std::path::PathBuf {
    let path = std::env::var("PATH").unwrap();
    path.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.exists()).unwrap()
}

/// An image with Busybox and its applets, as `docker save` would write it.
fn archive(name: &str, architecture: &str, busybox: &[u8], command: &[&str]) -> Vec<u8> {
    let image = tempfile::tempdir().unwrap();
    let layer = layer(busybox);
    let config = config(architecture, &layer, command);
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    fs::write(image.path().join("layer.tar"), layer.body).unwrap();
    fs::write(image.path().join("config.json"), config.body).unwrap();
    fs::write(image.path().join("manifest.json"), manifest.to_string()).unwrap();
    tar(image.path(), &["manifest.json", "config.json", "layer.tar"])
}

/// What a registry has of an image with this machine's Busybox that says that it is for `architecture`: its
/// configuration, its only layer, and the manifest of both.
#[must_use]
pub fn for_registry(architecture: &str) -> [Content; 3] {
    let layer = layer(&fs::read(which("busybox")).unwrap());
    let config = config(architecture, &layer, &["/bin/sh"]);
    let manifest = manifests::manifest_with(&config, &[&layer]);
    [config, layer, manifest]
}

/// The same of an image that has nothing but this program, as `/program`.
#[must_use]
pub fn of_program(architecture: &str, program: &Path) -> [Content; 3] {
    let files = tempfile::tempdir().unwrap();
    fs::copy(program, files.path().join("program")).unwrap();
    let layer = Content { kind: LAYER, body: tar(files.path(), &["program"]) };
    let config = config(architecture, &layer, &["/program"]);
    let manifest = manifests::manifest_with(&config, &[&layer]);
    [config, layer, manifest]
}

fn layer(busybox: &[u8]) -> Content {
    let files = tempfile::tempdir().unwrap();
    for folder in ["bin", "tmp", "etc", "data"] {
        fs::create_dir_all(files.path().join(folder)).unwrap();
    }
    let program = files.path().join("bin/busybox");
    fs::write(&program, busybox).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for applet in APPLETS {
        symlink("busybox", files.path().join("bin").join(applet)).unwrap();
    }
    Content { kind: LAYER, body: tar(files.path(), &["."]) }
}

fn config(architecture: &str, layer: &Content, command: &[&str]) -> Content {
    let value = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Cmd": command, "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [layer.digest()] },
        "history": [{ "created": "2026-01-01T00:00:00Z" }],
    });
    Content::of("application/vnd.oci.image.config.v1+json", &value)
}

fn tar(folder: &Path, files: &[&str]) -> Vec<u8> {
    let output =
        Command::new("tar").arg("-C").arg(folder).args(["--owner=0", "--group=0", "-cf", "-"]).args(files).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
