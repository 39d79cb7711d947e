use crate::{
    change::Recorded,
    clock::Timestamp,
    ids::{PoolId, ServerId},
    patch::Patch,
    text::{Name, Tags},
    units::Resources,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a server's programs are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    #[serde(rename = "arm64")]
    Arm64,
    /// 64-bit RISC-V.
    #[serde(rename = "riscv64")]
    Riscv64,
}

impl Architecture {
    /// Every architecture.
    pub const ALL: [Self; 3] = [Self::X86_64, Self::Arm64, Self::Riscv64];

    /// The name that the product uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
            Self::Riscv64 => "riscv64",
        }
    }

    /// Reads a common spelling: of the kernel (`aarch64`), Go and OCI (`amd64`, `arm64/v8`), Rust (`riscv64gc`),
    /// Windows (`x64`). 32-bit relatives such as `armv7l` and `i686` are not taken for their 64-bit kin.
    ///
    /// # Errors
    /// A sentence that names the three.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().replace('-', "_").as_str() {
            "x86_64" | "amd64" | "x64" | "linux/amd64" => Ok(Self::X86_64),
            "arm64" | "aarch64" | "arm64/v8" | "arm64v8" | "linux/arm64" | "linux/arm64/v8" => Ok(Self::Arm64),
            "riscv64" | "riscv64gc" | "rv64gc" | "linux/riscv64" => Ok(Self::Riscv64),
            _ => Err("must be x86_64 (also amd64, x64), arm64 (also aarch64) or riscv64".to_owned()),
        }
    }
}

/// Whether a server can be reached and used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerStatus {
    /// In use.
    Online,
    /// Not reachable.
    Offline,
    /// Taken out by its operators.
    Maintenance,
    /// Being set up.
    Provisioning,
}

impl ServerStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Online, Self::Offline, Self::Maintenance, Self::Provisioning];

    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Maintenance => "maintenance",
            Self::Provisioning => "provisioning",
        }
    }

    /// Reads [`ServerStatus::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// How an agent can run work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// As a container.
    Docker,
    /// As a process.
    Exec,
}

/// What an agent reported of its machine; all unknown where there is no agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Architectures that the machine can emulate.
    pub emulated_architectures: Vec<Architecture>,
    /// The drivers that really work there.
    pub drivers: Vec<Driver>,
    /// Its operating system.
    pub os: Option<String>,
    /// Its kernel's release.
    pub kernel: Option<String>,
    /// The agent's version.
    pub agent_version: Option<String>,
    /// When the agent was last heard of.
    pub last_seen_at: Option<Timestamp>,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Its name, unique in the fleet.
    pub name: Name,
    /// What its programs are compiled for.
    pub architecture: Architecture,
    /// Whether it is in use.
    pub status: ServerStatus,
    /// What it has.
    pub capacity: Resources,
    /// What allocations hold of it.
    pub reserved: Resources,
    /// The model of its GPUs.
    pub gpu_model: Option<String>,
    /// Where it stands.
    pub location: Option<String>,
    /// The cluster it belongs to.
    pub cluster: Option<String>,
    /// Its failure domain.
    pub zone: Option<String>,
    /// The pool it belongs to.
    pub pool_id: Option<PoolId>,
    /// Free labels.
    pub tags: Tags,
    /// Whether its operators took it out of scheduling.
    pub cordoned: bool,
    /// What its agent reported.
    pub inventory: Inventory,
    /// Counts changes; the `ETag`.
    pub revision: i64,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Server {
    /// What allocations leave of it.
    #[must_use]
    pub fn available(&self) -> Resources {
        self.capacity.minus(self.reserved)
    }

    /// Whether new work may be placed on it at all.
    #[must_use]
    pub fn schedulable(&self) -> bool {
        self.status == ServerStatus::Online && !self.cordoned
    }

    /// The text that a keyword is looked for in, in lower case.
    #[must_use]
    pub fn search_text(&self) -> String {
        let plain = [
            Some(self.name.as_str()),
            self.location.as_deref(),
            self.cluster.as_deref(),
            self.zone.as_deref(),
            self.gpu_model.as_deref(),
        ];
        let tags = self.tags.iter().map(|(key, value)| format!("{key}:{value}"));
        let words: Vec<String> = plain.into_iter().flatten().map(str::to_owned).chain(tags).collect();
        words.join("\n").to_lowercase()
    }

    /// # Errors
    /// [`crate::Error::Invalid`] naming the capacities that are less than `reserved`.
    pub fn check_holds(&self, reserved: Resources) -> crate::Result<()> {
        let mut checks = crate::error::Checks::default();
        check_still_holds(&mut checks, self.capacity, reserved);
        checks.finish()
    }

    /// This server with a patch applied, at its next revision.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] naming the members that make no valid server.
    pub fn patched(&self, patch: ServerPatch, now: Timestamp) -> crate::Result<Self> {
        let mut capacity = self.capacity;
        capacity.cpu_millis = patch.total_cpu_millis.unwrap_or(capacity.cpu_millis);
        capacity.memory_mib = patch.total_memory_mib.unwrap_or(capacity.memory_mib);
        capacity.storage_mib = patch.total_storage_mib.unwrap_or(capacity.storage_mib);
        capacity.gpus = patch.total_gpus.unwrap_or(capacity.gpus);
        let mut checks = crate::error::Checks::default();
        check_still_holds(&mut checks, capacity, self.reserved);
        let tags = match patch.tags {
            Patch::Keep => Some(self.tags.clone()),
            Patch::Clear => Some(Tags::default()),
            Patch::Set(changes) => checks.take("tags", self.tags.patched(changes)),
        };
        checks.finish()?;
        Ok(Self {
            name: patch.name.unwrap_or_else(|| self.name.clone()),
            architecture: patch.architecture.unwrap_or(self.architecture),
            status: patch.status.unwrap_or(self.status),
            capacity,
            gpu_model: patch.gpu_model.apply(self.gpu_model.clone()),
            location: patch.location.apply(self.location.clone()),
            cluster: patch.cluster.apply(self.cluster.clone()),
            zone: patch.zone.apply(self.zone.clone()),
            tags: tags.unwrap_or_default(),
            ..self.touched(now)
        })
    }

    /// This server with scheduling switched off or on, or `None` if it is so already.
    #[must_use]
    pub fn with_cordon(&self, cordoned: bool, now: Timestamp) -> Option<Self> {
        (self.cordoned != cordoned).then(|| Self { cordoned, ..self.touched(now) })
    }

    /// This server in another status, or `None` if it is in that already.
    #[must_use]
    pub fn with_status(&self, status: ServerStatus, now: Timestamp) -> Option<Self> {
        (self.status != status).then(|| Self { status, ..self.touched(now) })
    }

    fn touched(&self, now: Timestamp) -> Self {
        Self { revision: self.revision + 1, updated_at: now, ..self.clone() }
    }
}

/// A capacity cannot shrink below what is reserved: somebody runs there.
fn check_still_holds(checks: &mut crate::error::Checks, capacity: Resources, reserved: Resources) {
    let left = capacity.minus(reserved);
    let members = [
        ("total_cpu", left.cpu_millis),
        ("total_memory", left.memory_mib),
        ("total_storage", left.storage_mib),
        ("total_gpu", left.gpus),
    ];
    for (field, left) in members {
        if left < 0 {
            checks.note(field, "is less than what running tasks have reserved on this server");
        }
    }
}

impl Recorded for Server {
    const KIND: &'static str = "server";
    fn id(&self) -> i64 {
        self.id.0
    }
}

/// A server to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewServer {
    /// Its name.
    pub name: Name,
    /// What its programs are compiled for.
    pub architecture: Architecture,
    /// Whether it is in use.
    pub status: ServerStatus,
    /// What it has.
    pub capacity: Resources,
    /// The model of its GPUs.
    pub gpu_model: Option<String>,
    /// Where it stands.
    pub location: Option<String>,
    /// The cluster it belongs to.
    pub cluster: Option<String>,
    /// Its failure domain.
    pub zone: Option<String>,
    /// The pool it starts in.
    pub pool_id: Option<PoolId>,
    /// Free labels.
    pub tags: Tags,
}

impl NewServer {
    /// The server that this becomes under an id.
    #[must_use]
    pub fn into_server(self, id: ServerId, now: Timestamp) -> Server {
        Server {
            id,
            name: self.name,
            architecture: self.architecture,
            status: self.status,
            capacity: self.capacity,
            reserved: Resources::default(),
            gpu_model: self.gpu_model,
            location: self.location,
            cluster: self.cluster,
            zone: self.zone,
            pool_id: self.pool_id,
            tags: self.tags,
            cordoned: false,
            inventory: Inventory::default(),
            revision: 1,
            created_at: now,
            updated_at: now,
        }
    }
}

/// A merge patch of a server.
#[derive(Debug, Clone, Default)]
pub struct ServerPatch {
    /// Another name.
    pub name: Option<Name>,
    /// Another architecture.
    pub architecture: Option<Architecture>,
    /// Another status.
    pub status: Option<ServerStatus>,
    /// Another CPU capacity, in millicores.
    pub total_cpu_millis: Option<i64>,
    /// Another memory capacity, in MiB.
    pub total_memory_mib: Option<i64>,
    /// Another storage capacity, in MiB.
    pub total_storage_mib: Option<i64>,
    /// Another number of GPUs.
    pub total_gpus: Option<i64>,
    /// Another GPU model.
    pub gpu_model: Patch<String>,
    /// Another place.
    pub location: Patch<String>,
    /// Another cluster.
    pub cluster: Patch<String>,
    /// Another zone.
    pub zone: Patch<String>,
    /// Tags to set (`Some`) and to remove (`None`).
    pub tags: Patch<BTreeMap<String, Option<String>>>,
}

/// Which servers are wanted; all that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFilter {
    /// Of this architecture.
    pub architecture: Option<Architecture>,
    /// In this status.
    pub status: Option<ServerStatus>,
    /// With this text, whatever its case, in name, location, cluster, zone, GPU model or a tag.
    pub keyword: Option<String>,
    /// In this pool.
    pub pool_id: Option<PoolId>,
    /// In this cluster.
    pub cluster: Option<String>,
    /// In this zone.
    pub zone: Option<String>,
    /// With every one of these tags.
    pub tags: Vec<(String, String)>,
}

/// What servers are sorted by; ids break ties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// The order of registration.
    Id,
    /// The name, by code points.
    Name,
    /// The CPU capacity.
    TotalCpu,
    /// The memory capacity.
    TotalMemory,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSort {
    /// By what.
    pub key: SortKey,
    /// Largest first.
    pub descending: bool,
}

impl ServerSort {
    /// What lists are sorted by if nobody says: newest first.
    pub const NEWEST_FIRST: Self = Self { key: SortKey::Id, descending: true };

    /// Reads `name`, or `-name` for the other way round.
    ///
    /// # Errors
    /// A sentence that names what can be sorted by.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (word, descending) = text.strip_prefix('-').map_or((text, false), |word| (word, true));
        let key = match word {
            "id" => SortKey::Id,
            "name" => SortKey::Name,
            "total_cpu" => SortKey::TotalCpu,
            "total_memory" => SortKey::TotalMemory,
            _ => {
                return Err(
                    "must be id, name, total_cpu or total_memory, with a - before it for the largest first".to_owned()
                );
            }
        };
        Ok(Self { key, descending })
    }

    /// The text that [`ServerSort::parse`] reads.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match (self.key, self.descending) {
            (SortKey::Id, false) => "id",
            (SortKey::Id, true) => "-id",
            (SortKey::Name, false) => "name",
            (SortKey::Name, true) => "-name",
            (SortKey::TotalCpu, false) => "total_cpu",
            (SortKey::TotalCpu, true) => "-total_cpu",
            (SortKey::TotalMemory, false) => "total_memory",
            (SortKey::TotalMemory, true) => "-total_memory",
        }
    }

    /// The value of the sort key in `server`, as it stands in a cursor.
    #[must_use]
    pub fn key_of(self, server: &Server) -> String {
        match self.key {
            SortKey::Id => String::new(),
            SortKey::Name => server.name.as_str().to_owned(),
            SortKey::TotalCpu => server.capacity.cpu_millis.to_string(),
            SortKey::TotalMemory => server.capacity.memory_mib.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_spellings_are_one_architecture() {
        let check = |expected: Architecture, spellings: &[&str]| {
            for spelling in spellings {
                assert_eq!(Architecture::parse(spelling), Ok(expected), "{spelling}");
            }
        };
        check(Architecture::X86_64, &["x86_64", "amd64", "x64", "AMD64", "x86-64"]);
        check(Architecture::Arm64, &["arm64", "aarch64", "arm64/v8", "AArch64"]);
        check(Architecture::Riscv64, &["riscv64", "riscv64gc", "RISCV64"]);
    }

    #[test]
    fn thirty_two_bit_relatives_are_refused() {
        for text in ["armv7l", "arm", "armhf", "arm/v7", "i686", "i386", "x86", "riscv32", "", "sparc"] {
            assert!(Architecture::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sorts_read_back() {
        for text in ["id", "-id", "name", "-name", "total_cpu", "-total_cpu", "total_memory", "-total_memory"] {
            assert_eq!(ServerSort::parse(text).unwrap().as_str(), text);
        }
        assert!(ServerSort::parse("password").is_err());
    }
}
