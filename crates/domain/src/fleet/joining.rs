//! What a machine becomes when it joins: a server of its own, or the one that was registered under its name.

use super::{
    agent_ports::{AgentAccount, NewAgent},
    enrollment::Enrollment,
    model::{Inventory, NewServer, Server, ServerStatus},
};
use crate::{
    Error, Result,
    clock::Timestamp,
    ids::{PoolId, ServerId},
    text::Tags,
};

impl Enrollment {
    /// Says that a join token opens nothing, whether it never did or is gone.
    #[must_use]
    pub fn unknown() -> Error {
        let reason = "the join token is not known; have an admin make one with POST /enrollments".to_owned();
        Error::Unauthenticated { reason }
    }

    /// Says that the pool that servers join by this token is gone.
    #[must_use]
    pub fn pool_gone(&self, pool: PoolId) -> Error {
        let reason = format!(
            "the join token \"{}\" is for the pool {pool}, which is gone; have an admin make another token",
            self.name
        );
        Error::conflict("pool_gone", reason)
    }

    /// The server that a machine becomes by this token, still without an id.
    #[must_use]
    pub fn admitted(&self, machine: NewServer, inventory: Inventory, now: Timestamp) -> Server {
        let new = NewServer { pool_id: self.pool_id, tags: self.tags.clone(), ..machine };
        Server { inventory, ..new.into_server(ServerId(0), now) }
    }
}

/// A server that has the name of a machine that joins, and what is known of its use.
#[derive(Debug, Clone)]
pub struct Namesake {
    /// The server.
    pub server: Server,
    /// Its agent, if it has one.
    pub agent: Option<AgentAccount>,
    /// The tasks on it, in words, if there are any.
    pub tasks: Option<String>,
}

impl Namesake {
    /// This server as the machine's that joins. What its operators decided stays, and it gets those of the token's tags
    /// that it does not have; the rest is as the machine says.
    ///
    /// # Errors
    /// `name_taken` if it is another machine's, or may be.
    pub fn adopted(
        &self,
        enrollment: &Enrollment,
        machine: &NewServer,
        inventory: Inventory,
        now: Timestamp,
    ) -> Result<Server> {
        self.check_free(machine)?;
        let before = &self.server;
        let status = match before.status {
            ServerStatus::Maintenance => ServerStatus::Maintenance,
            _ => machine.status,
        };
        Ok(Server {
            architecture: machine.architecture,
            status,
            capacity: machine.capacity,
            gpu_model: machine.gpu_model.clone().or_else(|| before.gpu_model.clone()),
            tags: self.with_tags(&enrollment.tags)?,
            inventory: Inventory {
                last_seen_at: inventory.last_seen_at.max(before.inventory.last_seen_at),
                ..inventory
            },
            revision: before.revision + 1,
            updated_at: now,
            ..before.clone()
        })
    }

    /// Whether the agent that joins is the one that this server has already: it asks again, because the answer that let
    /// it in was lost on the way, and it has never been heard of since.
    #[must_use]
    pub fn asks_again(&self, agent: &NewAgent) -> bool {
        let seen = self.server.inventory.last_seen_at;
        self.agent.as_ref().is_some_and(|known| known.place == agent.place && seen <= Some(known.enrolled_at))
    }

    fn check_free(&self, machine: &NewServer) -> Result<()> {
        let taken = |what: String, instead: &str| {
            let reason = format!(
                "there is a server named \"{}\" already, {what}; give this machine another name, or {instead}",
                self.server.name
            );
            Err(Error::conflict("name_taken", reason))
        };
        if self.agent.is_some() {
            return taken(
                "and it has an agent".to_owned(),
                "delete that server first if it is this machine, set up anew",
            );
        }
        if self.tasks.is_some() || !self.server.reserved.is_zero() {
            let tasks = self.tasks.as_deref().unwrap_or("what is reserved does not say for whom; check the ledger");
            return taken(format!("and it has work on it ({tasks})"), "cancel or move that work first");
        }
        if self.server.architecture != machine.architecture {
            let (theirs, ours) = (self.server.architecture.as_str(), machine.architecture.as_str());
            return taken(format!("of the architecture {theirs}, and this machine's is {ours}"), "correct that first");
        }
        Ok(())
    }

    fn with_tags(&self, more: &Tags) -> Result<Tags> {
        let own = self.server.tags.as_map();
        let missing = more.iter().filter(|(key, _)| !own.contains_key(*key));
        let patch = missing.map(|(key, value)| (key.to_owned(), Some(value.to_owned()))).collect();
        self.server.tags.patched(patch).map_err(|rule| {
            let reason = format!(
                "with the join token's tags, the tags of server \"{}\" would not be valid: a server {rule}; remove \
                 some of its tags first",
                self.server.name
            );
            Error::conflict("too_many_tags", reason)
        })
    }
}

#[cfg(test)]
#[path = "joining_tests.rs"]
mod tests;
