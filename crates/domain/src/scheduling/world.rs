//! A small world around an engine, for tests: it commits what the engine decides as a database would, checks it as the
//! last check does, and lets tasks end.

use super::{
    Decision, Engine, Success, Task, TaskSpec, TaskStatus,
    fixtures::{self, cores},
};
use crate::{
    clock::Timestamp,
    fleet::Server,
    ids::{PoolId, ServerId, TaskId},
    pools::Pool,
    testing::START,
    units::Resources,
};
use chrono::TimeDelta;
use std::collections::BTreeMap;

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) servers: BTreeMap<ServerId, Server>,
    pub(crate) pools: BTreeMap<PoolId, (Pool, Resources)>,
    pub(crate) tasks: BTreeMap<TaskId, Task>,
    pub(crate) now: Timestamp,
}

impl World {
    /// Servers numbered from 1, with so many cores each.
    pub(crate) fn of(cores_each: &[i64]) -> Self {
        let mut world = Self {
            engine: Engine::default(),
            servers: BTreeMap::new(),
            pools: BTreeMap::new(),
            tasks: BTreeMap::new(),
            now: START,
        };
        for (id, each) in (1..).zip(cores_each) {
            world.server(fixtures::server(id, cores(*each)));
        }
        world
    }

    pub(crate) fn server(&mut self, server: Server) {
        self.engine.server(&server);
        self.servers.insert(server.id, server);
    }

    pub(crate) fn pool(&mut self, pool: Pool) {
        let reserved = self.pools.get(&pool.id).map(|(_, reserved)| *reserved).unwrap_or_default();
        self.engine.pool(&pool, reserved);
        self.pools.insert(pool.id, (pool, reserved));
    }

    /// Posts a task; they are numbered from 1.
    pub(crate) fn post(&mut self, spec: TaskSpec) -> TaskId {
        let id = i64::try_from(self.tasks.len()).unwrap() + 1;
        let task = Task { created_at: self.now, updated_at: self.now, ..fixtures::task(id, spec) };
        self.engine.task(&task);
        self.tasks.insert(task.id, task);
        TaskId(id)
    }

    /// Lets the engine decide until it has nothing to do, and commits each decision. Answers with (task, server).
    pub(crate) fn settle(&mut self) -> Vec<(i64, i64)> {
        let mut all = Vec::new();
        loop {
            let decisions = self.engine.next(self.now, 1000);
            let ended = decisions.is_empty() && !self.engine.has_work();
            for decision in decisions {
                all.push((decision.task.0, decision.server.0));
                self.commit(decision);
            }
            if ended {
                return all;
            }
        }
    }

    pub(crate) fn commit(&mut self, decision: Decision) {
        let task = &self.tasks[&decision.task];
        assert_eq!((task.revision, task.attempt + 1), (decision.revision, decision.attempt));
        let task = task.placed(decision.server, self.now).unwrap();
        let (server, pool) = self.reserve(decision.server, decision.demand);
        self.engine.server_reserved(server.0, server.1);
        if let Some((id, reserved)) = pool {
            self.engine.pool_reserved(id, reserved);
        }
        self.engine.task(&task);
        self.tasks.insert(task.id, task);
    }

    /// Changes what is reserved on a server and in its pool, and answers with both.
    pub(crate) fn reserve(
        &mut self,
        id: ServerId,
        more: Resources,
    ) -> ((ServerId, Resources), Option<(PoolId, Resources)>) {
        let server = self.servers.get_mut(&id).unwrap();
        server.reserved = server.reserved.plus(more);
        assert!(server.reserved.fits_in(server.capacity), "{server:?}");
        let pool = server.pool_id.and_then(|id| self.pools.get_mut(&id)).map(|(pool, reserved)| {
            *reserved = reserved.plus(more);
            assert!(more.cpu_millis < 0 || fixtures::allowed(pool.quotas, *reserved), "{pool:?} {reserved:?}");
            (pool.id, *reserved)
        });
        ((id, server.reserved), pool)
    }

    /// Lets a task end, in whatever state it is.
    pub(crate) fn end(&mut self, id: TaskId) {
        let task = &self.tasks[&id];
        let held = task.server_id.filter(|_| task.status.holds());
        let ended = match task.status {
            TaskStatus::Running => task.completed(Success::Yes, self.now),
            _ => task.cancelled(self.now),
        };
        let Ok(ended) = ended else { return };
        if let Some(server) = held {
            let ((server, held), pool) = self.reserve(server, Resources::default().minus(ended.spec.demand));
            self.engine.server_reserved(server, held);
            if let Some((pool, held)) = pool {
                self.engine.pool_reserved(pool, held);
            }
        }
        self.engine.task(&ended);
        self.tasks.insert(id, ended);
    }

    pub(crate) fn pass(&mut self, by: TimeDelta) {
        self.now += by;
    }

    pub(crate) fn status(&self, id: TaskId) -> TaskStatus {
        self.tasks[&id].status
    }
}
