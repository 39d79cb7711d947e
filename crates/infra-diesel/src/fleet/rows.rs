//! Rows of servers and their tags, and their conversion from and to the domain.

use crate::{
    failure::Failure,
    schema::servers,
    values::{corrupt, from_json, from_us, to_json, to_us, word},
};
use diesel::prelude::*;
use domain::{
    fleet::{Architecture, Inventory, Server, ServerStatus},
    ids::{PoolId, ServerId},
    text::Name,
    units::Resources,
};

#[derive(Queryable)]
pub(super) struct Row {
    id: i64,
    name: String,
    architecture: String,
    status: String,
    cpu_millis: i64,
    memory_mib: i64,
    storage_mib: i64,
    gpus: i64,
    reserved_cpu_millis: i64,
    reserved_memory_mib: i64,
    reserved_storage_mib: i64,
    reserved_gpus: i64,
    gpu_model: Option<String>,
    location: Option<String>,
    cluster: Option<String>,
    zone: Option<String>,
    pool_id: Option<i64>,
    tags: String,
    cordoned: bool,
    emulated_architectures: String,
    drivers: String,
    os: Option<String>,
    kernel: Option<String>,
    agent_version: Option<String>,
    last_seen_at_us: Option<i64>,
    revision: i64,
    created_at_us: i64,
    updated_at_us: i64,
}

impl TryFrom<Row> for Server {
    type Error = Failure;

    fn try_from(row: Row) -> Result<Self, Failure> {
        Ok(Self {
            id: ServerId(row.id),
            name: Name::trusted(row.name),
            architecture: Architecture::parse(&row.architecture).map_err(corrupt)?,
            status: word(&row.status, ServerStatus::parse)?,
            capacity: Resources {
                cpu_millis: row.cpu_millis,
                memory_mib: row.memory_mib,
                storage_mib: row.storage_mib,
                gpus: row.gpus,
            },
            reserved: Resources {
                cpu_millis: row.reserved_cpu_millis,
                memory_mib: row.reserved_memory_mib,
                storage_mib: row.reserved_storage_mib,
                gpus: row.reserved_gpus,
            },
            gpu_model: row.gpu_model,
            location: row.location,
            cluster: row.cluster,
            zone: row.zone,
            pool_id: row.pool_id.map(PoolId),
            tags: from_json(&row.tags)?,
            cordoned: row.cordoned,
            inventory: Inventory {
                emulated_architectures: from_json(&row.emulated_architectures)?,
                drivers: from_json(&row.drivers)?,
                os: row.os,
                kernel: row.kernel,
                agent_version: row.agent_version,
                last_seen_at: row.last_seen_at_us.map(from_us).transpose()?,
            },
            revision: row.revision,
            created_at: from_us(row.created_at_us)?,
            updated_at: from_us(row.updated_at_us)?,
        })
    }
}

/// What an agent reports of its machine besides what that has, as columns; inserted and updated alike.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = servers)]
#[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
pub(super) struct InventoryColumns {
    emulated_architectures: String,
    drivers: String,
    os: Option<String>,
    kernel: Option<String>,
    agent_version: Option<String>,
}

impl TryFrom<&Inventory> for InventoryColumns {
    type Error = Failure;

    fn try_from(inventory: &Inventory) -> Result<Self, Failure> {
        Ok(Self {
            emulated_architectures: to_json(&inventory.emulated_architectures)?,
            drivers: to_json(&inventory.drivers)?,
            os: inventory.os.clone(),
            kernel: inventory.kernel.clone(),
            agent_version: inventory.agent_version.clone(),
        })
    }
}

/// What an operator decides about a server, as columns; inserted and updated alike.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = servers)]
#[diesel(treat_none_as_null = true, treat_none_as_default_value = false)]
pub(super) struct Columns {
    name: String,
    architecture: &'static str,
    status: &'static str,
    cpu_millis: i64,
    memory_mib: i64,
    storage_mib: i64,
    gpus: i64,
    gpu_model: Option<String>,
    location: Option<String>,
    cluster: Option<String>,
    zone: Option<String>,
    tags: String,
    revision: i64,
    updated_at_us: i64,
}

impl TryFrom<&Server> for Columns {
    type Error = Failure;

    fn try_from(server: &Server) -> Result<Self, Failure> {
        Ok(Self {
            name: server.name.as_str().to_owned(),
            architecture: server.architecture.as_str(),
            status: server.status.as_str(),
            cpu_millis: server.capacity.cpu_millis,
            memory_mib: server.capacity.memory_mib,
            storage_mib: server.capacity.storage_mib,
            gpus: server.capacity.gpus,
            gpu_model: server.gpu_model.clone(),
            location: server.location.clone(),
            cluster: server.cluster.clone(),
            zone: server.zone.clone(),
            tags: to_json(&server.tags)?,
            revision: server.revision,
            updated_at_us: to_us(server.updated_at),
        })
    }
}
