//! The shape of the house: every room on every floor, small files, and a domain that depends on nothing that acts.

use domain::identity::Room;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The longest file of code, in lines.
const LONGEST_FILE: usize = 500;
/// What the domain may depend on: types, and small crates without I/O.
const DOMAIN_MAY_USE: [&str; 10] =
    ["async-trait", "base64", "chrono", "hmac", "mockall", "serde", "serde_json", "sha2", "subtle", "thiserror"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for directory in ["crates", "tests"] {
        sources(&root().join(directory), &mut files);
    }
    assert!(files.len() > 50, "the sources were not found");
    files
}

#[test]
fn every_room_is_on_every_floor() {
    let there = |path: String| root().join(&path).exists();
    for room in Room::ALL.map(Room::as_str) {
        assert!(there(format!("crates/domain/src/{room}/mod.rs")), "the domain has no {room}");
        assert!(there(format!("crates/infra-diesel/src/{room}.rs")), "the database floor has no {room}");
        assert!(there(format!("crates/api-actix/src/rooms/{room}.rs")), "the API has no {room}");
        assert!(there(format!("tests/blackbox/{room}.rs")), "there are no tests of {room}");
    }
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    for file in all_sources() {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(
            lines <= LONGEST_FILE,
            "{} has {lines} lines: it wants a thought, and then a second file",
            file.display()
        );
    }
}

#[test]
fn the_domain_depends_on_nothing_that_acts() {
    let manifest = fs::read_to_string(root().join("crates/domain/Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    for line in section.lines().filter(|line| !line.trim().is_empty()) {
        let name = line.split(['.', ' ', '=']).next().unwrap();
        assert!(DOMAIN_MAY_USE.contains(&name), "the domain must not depend on {name}");
    }
}

#[test]
fn the_domain_reads_no_clock_and_no_file() {
    let domain = root().join("crates/domain/src");
    for file in all_sources().into_iter().filter(|file| file.starts_with(&domain)) {
        let text = fs::read_to_string(&file).unwrap();
        for forbidden in ["Utc::now", "SystemTime::now", "Instant::now", "std::fs", "std::net", "std::env"] {
            assert!(!text.contains(forbidden), "{} uses {forbidden}", file.display());
        }
    }
}
