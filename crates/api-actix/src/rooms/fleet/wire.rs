//! The bodies of the agents' calls. What they are read into is the domain's ([`domain::fleet::protocol`]); here is what
//! the API document says of them. Members that are not known are ignored, because agents may be newer than the server.

use domain::fleet::{
    Architecture,
    protocol::{EnrollRequest, InventoryReport, ProgressReport, ResultReport, SessionRequest, StartedReport},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// Declares a body that is read as a type of the protocol and documented as another.
macro_rules! bodies {
    ($($(#[$doc:meta])* $name:ident($inner:ty) as $shape:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub(super) struct $name(#[schemars(with = $shape)] pub(super) $inner);
    )+};
}

bodies! {
    /// An agent that wants to join.
    EnrollBody(EnrollRequest) as "AgentEnrollRequest";
    /// An agent that has started.
    SessionBody(SessionRequest) as "AgentSessionRequest";
    /// What something is at.
    ProgressBody(ProgressReport) as "AgentProgressReport";
    /// Something runs.
    StartedBody(StartedReport) as "AgentStartedReport";
    /// Something has ended.
    ResultBody(ResultReport) as "AgentResultReport";
}

/// What an agent found out about its machine, in its session.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AgentInventoryReport")]
pub(super) struct InventoryBody {
    /// The agent's session.
    pub(super) session: String,
    /// What it found.
    #[schemars(with = "AgentInventory")]
    pub(super) inventory: InventoryReport,
}

/// What is only written down for the document.
macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident { $($(#[$member_doc:meta])* $member:ident: $kind:ty,)+ })+) => {$(
        $(#[$doc])*
        #[derive(JsonSchema)]
        #[expect(dead_code, reason = "it is only documented, never made")]
        struct $name { $($(#[$member_doc])* $member: $kind,)+ }
    )+};
}

shapes! {
    /// What an agent found out about its machine.
    AgentInventory {
        /// In the words of the container engine or the kernel, such as `aarch64`.
        #[schemars(length(max = 256))]
        architecture: String,
        /// What the machine has.
        capacity: AgentCapacity,
        /// The model of its GPUs.
        gpu_model: Option<String>,
        /// Architectures that it emulates.
        #[schemars(default, schema_with = "architectures")]
        emulated_architectures: Vec<String>,
        /// The drivers that work.
        #[schemars(default, schema_with = "drivers")]
        drivers: Vec<String>,
        /// Its operating system.
        os: Option<String>,
        /// Its kernel's release.
        kernel: Option<String>,
        /// The version of the agent.
        #[schemars(length(max = 256))]
        agent_version: String,
    }
    /// What a machine has, in the units of the protocol.
    AgentCapacity {
        /// Millicores.
        #[schemars(range(min = 0, max = 1_100_000_000))]
        cpu_millis: i64,
        /// MiB.
        #[schemars(range(min = 0, max = 1_100_000_000))]
        memory_mib: i64,
        /// MiB.
        #[schemars(range(min = 0, max = 1_100_000_000))]
        storage_mib: i64,
        /// Whole ones.
        #[schemars(range(min = 0, max = 1_100_000_000))]
        gpus: i64,
    }
    /// An agent that wants to join.
    AgentEnrollRequest {
        /// The join token.
        join_token: String,
        /// What the server is to be called.
        #[schemars(schema_with = "crate::rooms::dto::name")]
        name: String,
        /// Tells the agent's state directory apart from a copy of it.
        place: String,
        /// The versions of the protocol that it speaks.
        protocols: Vec<u32>,
        /// What it found.
        inventory: AgentInventory,
    }
    /// An agent that has started.
    AgentSessionRequest {
        /// Names this run of the agent.
        session: String,
        /// Tells the agent's state directory apart from a copy of it.
        place: String,
        /// The versions of the protocol that it speaks.
        protocols: Vec<u32>,
        /// What it found.
        inventory: AgentInventory,
    }
    /// Something runs.
    AgentStartedReport {
        /// The agent's session.
        session: String,
        /// Since when.
        started_at: domain::clock::Timestamp,
    }
    /// What something is at.
    AgentProgressReport {
        /// The agent's session.
        session: String,
        /// One sentence.
        message: String,
    }
    /// Something has ended.
    AgentResultReport {
        /// The agent's session.
        session: String,
        /// `completed`, `failed`, `cancelled`, `expired` or `unknown`.
        ending: AgentEnding,
        /// What the program ended with.
        exit_code: Option<i64>,
        /// The signal that ended the program.
        signal: Option<i64>,
        /// A stable code.
        reason: Option<String>,
        /// The same in words.
        detail: Option<String>,
        /// When it began to run.
        started_at: Option<domain::clock::Timestamp>,
        /// When it ended.
        finished_at: Option<domain::clock::Timestamp>,
    }
}

fn architectures(_: &mut SchemaGenerator) -> Schema {
    let words = Architecture::ALL.map(Architecture::as_str);
    json_schema!({ "type": "array", "maxItems": words.len(), "items": { "type": "string", "enum": words } })
}

fn drivers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 3, "items": { "type": "string", "enum": ["docker", "exec"] } })
}

/// How something ended on an agent.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(dead_code, reason = "it is only documented, never made")]
enum AgentEnding {
    /// Well.
    Completed,
    /// Badly.
    Failed,
    /// Because the server asked for it.
    Cancelled,
    /// It came too late to be begun.
    Expired,
    /// It cannot be told.
    Unknown,
}
