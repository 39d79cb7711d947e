//! What a server becomes by what its agent says, and by its silence.

use super::{
    model::{Architecture, Inventory, NewServer, Server, ServerStatus},
    protocol::InventoryReport,
};
use crate::{Error, Result, clock::Timestamp, error::Checks, text::Name, units::Resources};

/// The most of anything that a machine has, in millicores or MiB: a million cores, a PiB.
const MOST: i64 = 1_100_000_000;
/// The longest text of a report, in bytes.
const LONGEST: usize = 256;

impl InventoryReport {
    /// The architecture, if it is one that the product knows: a machine of any other cannot be a server.
    ///
    /// # Errors
    /// [`Error::Conflict`] with what the machine said.
    pub fn known_architecture(&self) -> Result<Architecture> {
        Architecture::parse(&self.architecture).map_err(|_says_which_there_are| {
            let reason = format!(
                "the machine says that its architecture is {}; servers are x86_64, arm64 or riscv64, with a 64-bit \
                 userland",
                self.architecture
            );
            Error::conflict("architecture_unsupported", reason)
        })
    }

    /// Refuses what no machine can be.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the members; as [`InventoryReport::known_architecture`].
    pub fn check(&self) -> Result<()> {
        let mut checks = Checks::default();
        let amounts = [
            ("cpu_millis", self.capacity.cpu_millis),
            ("memory_mib", self.capacity.memory_mib),
            ("storage_mib", self.capacity.storage_mib),
            ("gpus", self.capacity.gpus),
        ];
        for (member, amount) in amounts {
            if !(0..=MOST).contains(&amount) {
                checks.note(&format!("inventory.capacity.{member}"), format!("must be from 0 to {MOST}"));
            }
        }
        let texts = [
            ("architecture", Some(&self.architecture)),
            ("gpu_model", self.gpu_model.as_ref()),
            ("os", self.os.as_ref()),
            ("kernel", self.kernel.as_ref()),
            ("agent_version", Some(&self.agent_version)),
        ];
        for (member, text) in texts {
            if text.is_some_and(|text| text.len() > LONGEST || text.chars().any(char::is_control)) {
                checks.note(&format!("inventory.{member}"), format!("must be a line of at most {LONGEST} bytes"));
            }
        }
        if self.emulated_architectures.len() > Architecture::ALL.len() || self.drivers.len() > Architecture::ALL.len() {
            checks.note("inventory", "must not name an architecture or a driver twice");
        }
        checks.finish()?;
        self.known_architecture().map(|_| ())
    }

    /// The server that a machine becomes when it joins.
    ///
    /// # Errors
    /// As [`InventoryReport::known_architecture`].
    pub fn new_server(&self, name: Name) -> Result<NewServer> {
        Ok(NewServer {
            name,
            architecture: self.known_architecture()?,
            status: ServerStatus::Online,
            capacity: self.capacity,
            gpu_model: self.gpu_model.clone(),
            location: None,
            cluster: None,
            zone: None,
            pool_id: None,
            tags: crate::text::Tags::default(),
        })
    }

    /// What is kept of it besides architecture and capacity.
    #[must_use]
    pub fn inventory(&self, last_seen_at: Option<Timestamp>) -> Inventory {
        Inventory {
            emulated_architectures: self.emulated_architectures.clone(),
            drivers: self.drivers.clone(),
            os: self.os.clone(),
            kernel: self.kernel.clone(),
            agent_version: Some(self.agent_version.clone()),
            last_seen_at,
        }
    }
}

impl Server {
    /// This server as its agent reports it, in use again if it was out of reach; `None` if nothing is different.
    ///
    /// A machine that lost some of what tasks hold is not made smaller than that: what is free must not be less than
    /// nothing, or the ledger would lie about the rest.
    ///
    /// # Errors
    /// As [`InventoryReport::known_architecture`].
    pub fn reported(&self, report: &InventoryReport, now: Timestamp) -> Result<Option<Self>> {
        let status = match self.status {
            ServerStatus::Offline | ServerStatus::Provisioning => ServerStatus::Online,
            kept => kept,
        };
        let after = Self {
            architecture: report.known_architecture()?,
            status,
            capacity: at_least(report.capacity, self.reserved),
            gpu_model: report.gpu_model.clone().or_else(|| self.gpu_model.clone()),
            inventory: report.inventory(self.inventory.last_seen_at),
            ..self.clone()
        };
        Ok((after != *self).then(|| Self { revision: self.revision + 1, updated_at: now, ..after }))
    }

    /// This server, out of reach; `None` if it was not in use.
    #[must_use]
    pub fn out_of_reach(&self, now: Timestamp) -> Option<Self> {
        let lost = matches!(self.status, ServerStatus::Online);
        lost.then(|| Self {
            status: ServerStatus::Offline,
            revision: self.revision + 1,
            updated_at: now,
            ..self.clone()
        })
    }

    /// What its agent says of it, as it stands in the audit log.
    #[must_use]
    pub fn condition(&self) -> serde_json::Value {
        serde_json::json!({
            "status": self.status,
            "architecture": self.architecture,
            "capacity": self.capacity,
            "gpu_model": self.gpu_model,
            "emulated_architectures": self.inventory.emulated_architectures,
            "drivers": self.inventory.drivers,
            "os": self.inventory.os,
            "kernel": self.inventory.kernel,
            "agent_version": self.inventory.agent_version,
            "revision": self.revision,
        })
    }
}

fn at_least(capacity: Resources, reserved: Resources) -> Resources {
    Resources {
        cpu_millis: capacity.cpu_millis.max(reserved.cpu_millis),
        memory_mib: capacity.memory_mib.max(reserved.memory_mib),
        storage_mib: capacity.storage_mib.max(reserved.storage_mib),
        gpus: capacity.gpus.max(reserved.gpus),
    }
}

#[cfg(test)]
#[path = "reported_tests.rs"]
mod tests;
