//! The images, and what tasks ask for that run them.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use test_engine::{
    images,
    manifests::{self, Content},
    registry::Registry,
};

/// An architecture, in the words of those who have one.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    /// StarLink's.
    pub(super) word: &'static str,
    /// Images'.
    pub(super) platform: &'static str,
    /// Kernels', and with that `uname -m`'s.
    pub(super) machine: &'static str,
}

pub(super) const X86_64: &Kind = &Kind { word: "x86_64", platform: "linux/amd64", machine: "x86_64" };
pub(super) const ARM64: &Kind = &Kind { word: "arm64", platform: "linux/arm64", machine: "aarch64" };
pub(super) const RISCV64: &Kind = &Kind { word: "riscv64", platform: "linux/riscv64", machine: "riscv64" };
pub(super) const KINDS: [&Kind; 3] = [X86_64, ARM64, RISCV64];

/// The repository of all of them.
const REPOSITORY: &str = "acme/says";

/// An image, by what it was built for: a bit for each of [`KINDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Image(u8);

/// One for every choice of architectures.
pub(super) const IMAGES: [Image; 7] = [Image(7), Image(1), Image(2), Image(4), Image(3), Image(5), Image(6)];

impl Image {
    pub(super) fn kinds(self) -> Vec<&'static Kind> {
        KINDS.into_iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, kind)| kind).collect()
    }

    /// What it was built for, as people are told.
    pub(super) fn told(self) -> String {
        self.kinds().iter().map(|kind| kind.platform).collect::<Vec<_>>().join(", ")
    }

    fn tag(self) -> String {
        self.kinds().iter().map(|kind| kind.word).collect::<Vec<_>>().join("-")
    }
}

/// Pushes all of them: those for one architecture as they are, the others as an index. Each has the program that is in
/// the file that `program` names.
pub(super) async fn push(registry: &Registry, program: impl Fn(&Kind) -> PathBuf) {
    let mut built = Vec::new();
    for kind in KINDS {
        let architecture = kind.platform.trim_start_matches("linux/");
        built.push(images::of_program(architecture, &program(kind)));
    }
    for image in &built {
        registry.push(REPOSITORY, None, image).await;
    }
    let manifest = |kind: &Kind| &built[KINDS.iter().position(|one| *one == kind).unwrap()][2];
    for image in IMAGES {
        let entries: Vec<(&str, &Content)> =
            image.kinds().into_iter().map(|kind| (kind.platform, manifest(kind))).collect();
        match &entries[..] {
            [(_, alone)] => registry.push_manifest(REPOSITORY, &image.tag(), alone).await,
            several => {
                registry.push_manifest(REPOSITORY, &image.tag(), &manifests::index(manifests::INDEX, several)).await;
            }
        }
    }
}

/// How far apart in the list of demands those are that follow each other.
const STEP: usize = 11;

/// What a task asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) image: Image,
    /// The architecture that it states, if it does.
    pub(super) stated: Option<&'static Kind>,
    pub(super) allow_emulation: bool,
    /// How much of a server it takes.
    pub(super) units: i64,
}

impl Demand {
    /// So many that can run, of every kind that there is.
    pub(super) fn all(count: usize) -> Vec<Self> {
        let possible: Vec<Self> = Self::every().filter(Self::is_possible).collect();
        // This step comes by all of them, and mixes them, because it is prime and does not divide their number.
        assert!(!possible.len().is_multiple_of(STEP));
        let units = [1, 1, 2, 1, 3].into_iter().cycle();
        let chosen = (0..count).map(|n| possible[n * STEP % possible.len()]);
        chosen.zip(units).map(|(demand, units)| Self { units, ..demand }).collect()
    }

    /// Those that state what their image does not have.
    pub(super) fn impossible() -> impl Iterator<Item = Self> {
        Self::every().filter(|demand| !demand.is_possible())
    }

    fn every() -> impl Iterator<Item = Self> {
        let stated = || [None].into_iter().chain(KINDS.map(Some));
        let stating = IMAGES.into_iter().flat_map(move |image| stated().map(move |stated| (image, stated)));
        stating.flat_map(|(image, stated)| {
            [false, true].map(|allow_emulation| Self { image, stated, allow_emulation, units: 1 })
        })
    }

    fn is_possible(&self) -> bool {
        self.stated.is_none_or(|stated| self.image.kinds().contains(&stated))
    }

    /// What it may run as.
    pub(super) fn kinds(self) -> Vec<&'static Kind> {
        let kinds = self.image.kinds();
        kinds.into_iter().filter(|kind| self.stated.is_none_or(|stated| stated == *kind)).collect()
    }

    /// A task with it, which says what it runs on, and ends once the gate is there.
    pub(super) fn body(self, registry: &Registry, unit: f64, gate: &Path) -> Value {
        let folder = gate.parent().unwrap();
        let mut body = json!({
            "name": self.image.tag(), "driver": "docker",
            "image": registry.name(&format!("{REPOSITORY}:{}", self.image.tag())),
            "command": ["/program", "0", "/runs", gate],
            "mounts": [{ "source": folder, "target": folder }],
            "required_cpu": unit * f64::from(i32::try_from(self.units).unwrap()),
            "allow_emulation": self.allow_emulation,
        });
        if let Some(stated) = self.stated {
            body["required_architecture"] = json!(stated.word);
        }
        body
    }
}
