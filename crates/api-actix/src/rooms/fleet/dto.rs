//! Servers as they are sent and shown: cores and GiB outside, millicores and MiB inside.

use crate::{extract::patch, rooms::dto};
use domain::{
    Error, Result,
    clock::Timestamp,
    error::Checks,
    fleet::{Architecture, Driver, NewServer, Server, ServerFilter, ServerPatch, ServerSort, ServerStatus},
    ids::PoolId,
    page::PageRequest,
    patch::Patch,
    text::{Name, Tags},
    units::{Resources, Rounding, cores, cpu_millis, gib, mib},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whether a server can be reached and used.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ServerStatus")]
pub(super) enum Status {
    /// In use.
    Online,
    /// Not reachable.
    Offline,
    /// Taken out by its operators.
    Maintenance,
    /// Being set up.
    Provisioning,
}

impl From<Status> for ServerStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Online => Self::Online,
            Status::Offline => Self::Offline,
            Status::Maintenance => Self::Maintenance,
            Status::Provisioning => Self::Provisioning,
        }
    }
}

/// A server to be registered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerCreate {
    /// Its name, unique in the fleet.
    #[schemars(schema_with = "dto::name")]
    name: String,
    /// What its programs are compiled for, in any common spelling.
    #[schemars(schema_with = "dto::architecture")]
    architecture: String,
    /// Cores.
    #[schemars(schema_with = "dto::cores")]
    total_cpu: f64,
    /// Memory in GiB.
    #[schemars(schema_with = "dto::gib")]
    total_memory: f64,
    /// Storage in GiB.
    #[schemars(schema_with = "dto::gib_or_none")]
    total_storage: f64,
    /// GPUs; none if left out.
    #[schemars(range(min = 0, max = 100_000))]
    total_gpu: Option<i64>,
    /// The model of its GPUs.
    #[serde(default)]
    #[schemars(schema_with = "dto::line")]
    gpu_model: Option<String>,
    /// Whether it is in use; offline if left out.
    status: Option<Status>,
    /// Where it stands.
    #[serde(default)]
    #[schemars(schema_with = "dto::line")]
    location: Option<String>,
    /// The cluster it belongs to.
    #[serde(default)]
    #[schemars(schema_with = "dto::line")]
    cluster: Option<String>,
    /// Its failure domain.
    #[serde(default)]
    #[schemars(schema_with = "dto::line")]
    zone: Option<String>,
    /// The pool it starts in.
    #[schemars(range(min = 1))]
    pool_id: Option<i64>,
    /// Free labels.
    #[serde(default)]
    #[schemars(schema_with = "dto::tags")]
    tags: Option<BTreeMap<String, String>>,
}

impl ServerCreate {
    /// The domain's word for it.
    pub(super) fn parse(self) -> Result<NewServer> {
        let mut checks = Checks::default();
        let name = checks.take("name", Name::parse(self.name));
        let architecture = checks.take("architecture", Architecture::parse(&self.architecture));
        let cpu = checks.take("total_cpu", cpu_total(self.total_cpu));
        let memory = checks.take("total_memory", memory_total(self.total_memory));
        let storage = checks.take("total_storage", mib(self.total_storage, Rounding::Down));
        let gpus = checks.take("total_gpu", dto::gpu_count(self.total_gpu.unwrap_or_default()));
        let gpu_model = dto::optional_line(&mut checks, "gpu_model", self.gpu_model);
        let location = dto::optional_line(&mut checks, "location", self.location);
        let cluster = dto::optional_line(&mut checks, "cluster", self.cluster);
        let zone = dto::optional_line(&mut checks, "zone", self.zone);
        let tags = checks.take("tags", Tags::parse(self.tags.unwrap_or_default()));
        let pool_id = dto::reference(&mut checks, "pool_id", self.pool_id);
        checks.finish()?;
        let complete = name.zip(architecture).zip(cpu.zip(memory)).zip(storage.zip(gpus)).zip(tags);
        let ((((name, architecture), (cpu_millis, memory_mib)), (storage_mib, gpus)), tags) =
            complete.ok_or_else(|| Error::internal("a checked server is incomplete"))?;
        Ok(NewServer {
            name,
            architecture,
            status: self.status.map_or(ServerStatus::Offline, Into::into),
            capacity: Resources { cpu_millis, memory_mib, storage_mib, gpus },
            gpu_model,
            location,
            cluster,
            zone,
            pool_id: pool_id.map(PoolId),
            tags,
        })
    }
}

fn cpu_total(cores: f64) -> Result<i64, String> {
    dto::at_least_one(cpu_millis(cores, Rounding::Down), "0.001 cores")
}

fn memory_total(gib: f64) -> Result<i64, String> {
    dto::at_least_one(mib(gib, Rounding::Down), "0.0009765625 GiB (1 MiB)")
}

/// A merge patch of a server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ServerPatch")]
#[derive(Default)]
pub(super) struct ServerPatchBody {
    /// Another name.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::name")]
    name: Patch<String>,
    /// Another architecture.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::architecture")]
    architecture: Patch<String>,
    /// Cores.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::cores")]
    total_cpu: Patch<f64>,
    /// Memory in GiB.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::gib")]
    total_memory: Patch<f64>,
    /// Storage in GiB.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::gib_or_none")]
    total_storage: Patch<f64>,
    /// GPUs.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::gpus")]
    total_gpu: Patch<i64>,
    /// The model of its GPUs.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::line")]
    gpu_model: Patch<String>,
    /// Whether it is in use.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(with = "Status")]
    status: Patch<Status>,
    /// Where it stands.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::line")]
    location: Patch<String>,
    /// The cluster it belongs to.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::line")]
    cluster: Patch<String>,
    /// Its failure domain.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::line")]
    zone: Patch<String>,
    /// Labels to set and to remove.
    #[serde(deserialize_with = "patch::read")]
    #[schemars(schema_with = "dto::tags_patch")]
    tags: Patch<BTreeMap<String, Option<String>>>,
}

impl ServerPatchBody {
    /// The domain's word for it.
    pub(super) fn parse(self) -> Result<ServerPatch> {
        let mut checks = Checks::default();
        let patch = ServerPatch {
            name: dto::replaced_name(&mut checks, self.name),
            architecture: dto::replaced(&mut checks, "architecture", self.architecture, |text| {
                Architecture::parse(&text)
            }),
            status: dto::replaced(&mut checks, "status", self.status, |status| Ok(status.into())),
            total_cpu_millis: dto::replaced(&mut checks, "total_cpu", self.total_cpu, cpu_total),
            total_memory_mib: dto::replaced(&mut checks, "total_memory", self.total_memory, memory_total),
            total_storage_mib: dto::replaced(&mut checks, "total_storage", self.total_storage, |gib| {
                mib(gib, Rounding::Down)
            }),
            total_gpus: dto::replaced(&mut checks, "total_gpu", self.total_gpu, dto::gpu_count),
            gpu_model: dto::patched_line(&mut checks, "gpu_model", self.gpu_model),
            location: dto::patched_line(&mut checks, "location", self.location),
            cluster: dto::patched_line(&mut checks, "cluster", self.cluster),
            zone: dto::patched_line(&mut checks, "zone", self.zone),
            tags: dto::patched_tags(&mut checks, "tags", self.tags),
        };
        checks.finish()?;
        Ok(patch)
    }
}

/// Filters of the list of servers.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ServerListQuery {
    /// Of this architecture, in any common spelling.
    #[serde(default)]
    #[schemars(schema_with = "optional_architecture")]
    architecture: Option<String>,
    /// In this status.
    status: Option<Status>,
    /// With this text, whatever its case, in name, location, cluster, zone, GPU model or a tag.
    #[schemars(length(max = 128))]
    keyword: Option<String>,
    /// In this pool.
    #[schemars(range(min = 1))]
    pool_id: Option<i64>,
    /// In this cluster.
    cluster: Option<String>,
    /// In this zone.
    zone: Option<String>,
    /// With this tag, as `key:value`; may be repeated, then all must be there.
    #[serde(default)]
    #[schemars(inner(regex(pattern = "^[^:]+:")))]
    tag: Vec<String>,
    /// `id`, `name`, `total_cpu` or `total_memory`, with a `-` before it for the largest first.
    #[serde(default)]
    #[schemars(schema_with = "sort_schema")]
    sort: Option<String>,
    /// The most rows; 100 if left out.
    #[serde(default)]
    #[schemars(schema_with = "dto::limit")]
    limit: Option<i64>,
    /// Where to go on, from the `Link` header of the page before.
    cursor: Option<String>,
}

fn optional_architecture(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    dto::architecture(generator)
}

fn sort_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let words = ["id", "-id", "name", "-name", "total_cpu", "-total_cpu", "total_memory", "-total_memory"];
    schemars::json_schema!({ "type": "string", "enum": words })
}

impl ServerListQuery {
    /// The domain's words for it.
    pub(super) fn parse(self) -> Result<(ServerFilter, ServerSort, PageRequest)> {
        let mut checks = Checks::default();
        let architecture = self.architecture.and_then(|text| checks.take("architecture", Architecture::parse(&text)));
        let sort = self.sort.map_or(Ok(ServerSort::NEWEST_FIRST), |text| ServerSort::parse(&text));
        let sort = checks.take("sort", sort).unwrap_or(ServerSort::NEWEST_FIRST);
        let keyword = dto::keyword(&mut checks, self.keyword);
        let pool_id = dto::reference(&mut checks, "pool_id", self.pool_id);
        let tags = self.tag.into_iter().filter_map(|tag| checks.take("tag", pair(&tag))).collect();
        checks.finish()?;
        let filter = ServerFilter {
            architecture,
            status: self.status.map(Into::into),
            keyword,
            pool_id: pool_id.map(PoolId),
            cluster: self.cluster,
            zone: self.zone,
            tags,
        };
        Ok((filter, sort, PageRequest::parse(self.limit, self.cursor.as_deref(), sort.as_str())?))
    }
}

pub(crate) fn pair(tag: &str) -> Result<(String, String), String> {
    let (key, value) = tag.split_once(':').ok_or_else(|| "must be key:value".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A server.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Server")]
pub(super) struct ServerView {
    id: i64,
    name: String,
    architecture: &'static str,
    status: &'static str,
    total_cpu: f64,
    total_memory: f64,
    total_storage: f64,
    total_gpu: i64,
    reserved_cpu: f64,
    reserved_memory: f64,
    reserved_storage: f64,
    reserved_gpu: i64,
    available_cpu: f64,
    available_memory: f64,
    available_storage: f64,
    available_gpu: i64,
    gpu_model: Option<String>,
    location: Option<String>,
    cluster: Option<String>,
    zone: Option<String>,
    pool_id: Option<i64>,
    tags: BTreeMap<String, String>,
    /// Whether its operators took it out of scheduling.
    cordoned: bool,
    /// Whether new work may be placed on it at all.
    schedulable: bool,
    emulated_architectures: Vec<&'static str>,
    drivers: Vec<&'static str>,
    os: Option<String>,
    kernel: Option<String>,
    agent_version: Option<String>,
    last_seen_at: Option<Timestamp>,
    revision: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Server> for ServerView {
    fn from(server: Server) -> Self {
        let (total, reserved, available) = (server.capacity, server.reserved, server.available());
        let schedulable = server.schedulable();
        let inventory = server.inventory;
        Self {
            id: server.id.0,
            name: server.name.as_str().to_owned(),
            architecture: server.architecture.as_str(),
            status: server.status.as_str(),
            total_cpu: cores(total.cpu_millis),
            total_memory: gib(total.memory_mib),
            total_storage: gib(total.storage_mib),
            total_gpu: total.gpus,
            reserved_cpu: cores(reserved.cpu_millis),
            reserved_memory: gib(reserved.memory_mib),
            reserved_storage: gib(reserved.storage_mib),
            reserved_gpu: reserved.gpus,
            available_cpu: cores(available.cpu_millis),
            available_memory: gib(available.memory_mib),
            available_storage: gib(available.storage_mib),
            available_gpu: available.gpus,
            gpu_model: server.gpu_model,
            location: server.location,
            cluster: server.cluster,
            zone: server.zone,
            pool_id: server.pool_id.map(|pool| pool.0),
            tags: server.tags.into_map(),
            cordoned: server.cordoned,
            schedulable,
            emulated_architectures: inventory.emulated_architectures.iter().map(|a| a.as_str()).collect(),
            drivers: inventory.drivers.iter().map(|driver| driver_word(*driver)).collect(),
            os: inventory.os,
            kernel: inventory.kernel,
            agent_version: inventory.agent_version,
            last_seen_at: inventory.last_seen_at,
            revision: server.revision,
            created_at: server.created_at,
            updated_at: server.updated_at,
        }
    }
}

/// A server's JSON. Nothing in a view can fail to be written.
pub(super) fn text(server: &Server) -> String {
    serde_json::to_string(&ServerView::from(server.clone())).unwrap_or_default()
}

fn driver_word(driver: Driver) -> &'static str {
    match driver {
        Driver::Docker => "docker",
        Driver::Exec => "exec",
    }
}
