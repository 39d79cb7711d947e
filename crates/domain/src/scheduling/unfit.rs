use super::{
    amounts::Resource,
    sets::ArchitectureSet,
    snapshot::{PoolRow, ServerDetails, ServerRow},
    spec::TaskDriver,
};
use crate::{
    fleet::Driver,
    ids::TaskId,
    text::{Name, Tags},
};
use std::sync::Arc;

/// Why a server does not take a task. Small, because ten thousand servers have several each; the sentence is made by
/// [`super::Plan::reasons`] when somebody wants to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unfit {
    /// It does not run what the task's programs are compiled for.
    Architecture,
    /// An attempt of the task ended with an exec format error on what it has in common with the task.
    Barred,
    /// It would have to emulate what the task's programs are compiled for, which the task does not allow.
    Emulation,
    /// Its agent does not have the task's driver, or it has no agent.
    Driver(Driver),
    /// It cannot be reached.
    Offline,
    /// It is being maintained.
    Maintenance,
    /// It is being set up.
    Provisioning,
    /// Its operators took it out of scheduling.
    Cordoned,
    /// It is not in the pool that the task must run in.
    Pool,
    /// It has not enough of a resource free.
    Room {
        /// Which resource.
        resource: Resource,
        /// What the task asks for, in the resource's unit.
        needs: i64,
        /// What is free of it.
        free: i64,
        /// What it has of it.
        capacity: i64,
    },
    /// It is not the server that the task must run on.
    Server,
    /// It does not have the task's image, which cannot be pulled.
    Image,
    /// It lacks tags that the task selects by.
    Labels,
    /// It is kept free for a task that has waited too long.
    Held(TaskId),
    /// Its pool is not known yet.
    PoolUnknown,
    /// Its pool is above its high watermark.
    PoolSaturated,
    /// Not enough is left of its pool's quota.
    Quota {
        /// Of which resource.
        resource: Resource,
        /// What the task asks for, in the resource's unit.
        needs: i64,
        /// What is left of the quota.
        left: i64,
        /// The quota.
        quota: i64,
    },
    /// Its pool is kept free for a task that has waited too long.
    PoolHeld(TaskId),
}

impl Unfit {
    /// The stable code in the API.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Architecture => "architecture_mismatch",
            Self::Barred => "architecture_barred",
            Self::Emulation => "emulation_not_allowed",
            Self::Driver(_) => "driver_missing",
            Self::Offline => "offline",
            Self::Maintenance => "maintenance",
            Self::Provisioning => "provisioning",
            Self::Cordoned => "cordoned",
            Self::Pool => "pool_mismatch",
            Self::Server => "server_mismatch",
            Self::Image => "image_missing",
            Self::Labels => "labels_mismatch",
            Self::Held(_) | Self::PoolHeld(_) => "held",
            Self::PoolUnknown => "pool_unknown",
            Self::PoolSaturated => "pool_saturated",
            Self::Room { resource: Resource::Cpu, .. } => "insufficient_cpu",
            Self::Room { resource: Resource::Memory, .. } => "insufficient_memory",
            Self::Room { resource: Resource::Storage, .. } => "insufficient_storage",
            Self::Room { resource: Resource::Gpu, .. } => "insufficient_gpu",
            Self::Quota { resource: Resource::Cpu, .. } => "quota_cpu",
            Self::Quota { resource: Resource::Memory, .. } => "quota_memory",
            Self::Quota { resource: Resource::Storage, .. } => "quota_storage",
            Self::Quota { resource: Resource::Gpu, .. } => "quota_gpu",
        }
    }

    /// How far from fitting, in permille: of what is asked for, where room or quota is short; 1000 for what passes
    /// by itself or with a word, 2000 for what somebody would have to change about the server or the task.
    #[must_use]
    pub fn distance_permille(self) -> u32 {
        match self {
            Self::Room { needs, free: there, capacity: most, .. }
            | Self::Quota { needs, left: there, quota: most, .. } => {
                if needs > most {
                    return 2000;
                }
                let (missing, needs) = (i128::from(needs) - i128::from(there), i128::from(needs.max(1)));
                // At least one, so that what is short by a little is not as near as what is not short at all.
                u32::try_from((missing * 1000).div_euclid(needs).clamp(1, 1000)).unwrap_or(1000)
            }
            Self::Offline
            | Self::Maintenance
            | Self::Provisioning
            | Self::Cordoned
            | Self::Held(_)
            | Self::PoolHeld(_)
            | Self::PoolUnknown
            | Self::PoolSaturated => 1000,
            Self::Architecture
            | Self::Barred
            | Self::Emulation
            | Self::Driver(_)
            | Self::Pool
            | Self::Server
            | Self::Image
            | Self::Labels => 2000,
        }
    }
}

/// What sentences about a task are made from.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// What its programs are compiled for, as far as was known before the first attempt.
    pub(super) architectures: ArchitectureSet,
    /// On which of these attempts ended with an exec format error.
    pub(super) barred: ArchitectureSet,
    /// What its image was built for, where that is what decides.
    pub(super) platforms: Option<String>,
    pub(super) driver: TaskDriver,
    pub(super) pool: Option<Arc<str>>,
    pub(super) labels: Tags,
}

/// What sentences about a server are made from.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) name: Arc<Name>,
    pub(super) native: ArchitectureSet,
    pub(super) emulated: ArchitectureSet,
    pub(super) tags: Arc<Tags>,
    pub(super) pool: Option<Arc<str>>,
}

impl Subject {
    pub(super) fn new(row: &ServerRow, details: &ServerDetails, pool: &PoolRow) -> Self {
        Self {
            name: Arc::clone(&details.name),
            native: row.native,
            emulated: row.emulated,
            tags: Arc::clone(&details.tags),
            pool: pool.id.map(|_| Arc::clone(&pool.name)),
        }
    }

    /// Why it does not take the task, as the rest of a sentence that begins with its name.
    pub(super) fn told(&self, unfit: Unfit, task: &Wanted) -> String {
        let (native, needed) = (self.native, task.architectures);
        let pool = self.pool.as_deref().unwrap_or_default();
        match unfit {
            Unfit::Architecture => match &task.platforms {
                Some(platforms) => format!("is {native}, the task's image has {platforms}"),
                None => format!("is {native}, the task needs {needed}"),
            },
            Unfit::Barred => self.told_bar(task),
            Unfit::Emulation => {
                format!("is {native} and could only emulate {needed}, which the task does not allow")
            }
            Unfit::Driver(_) => format!("has no agent that offers the driver {}", task.driver),
            Unfit::Offline => "is offline".to_owned(),
            Unfit::Maintenance => "is under maintenance".to_owned(),
            Unfit::Provisioning => "is still being set up".to_owned(),
            Unfit::Cordoned => "is cordoned: it takes no new work".to_owned(),
            Unfit::Pool => self.told_pool(task),
            Unfit::Server => "is not the server that the task must run on".to_owned(),
            Unfit::Image => "does not have the task's image, which was found in no registry".to_owned(),
            Unfit::Labels => self.told_labels(task),
            Unfit::Room { resource, needs: 0, free, .. } => {
                format!("has {} more reserved than there is", resource.told(free.saturating_neg()))
            }
            Unfit::Room { resource, needs, free, .. } => {
                format!("needs {}, {} free", resource.told(needs), resource.number(free.max(0)))
            }
            Unfit::Quota { resource, needs: 0, left, .. } => {
                let beyond = resource.told(left.saturating_neg());
                format!("is in pool {pool:?}, where {beyond} more is held than its quota allows")
            }
            Unfit::Quota { resource, needs, left, quota } => format!(
                "needs {}, {} of {} left in the quota of pool {pool:?}",
                resource.told(needs),
                resource.number(left.max(0)),
                resource.number(quota),
            ),
            Unfit::Held(holder) => format!("is kept free for task {holder}, which has waited longest"),
            Unfit::PoolHeld(holder) => {
                format!("is in pool {pool:?}, which is kept free for task {holder}, which has waited longest")
            }
            Unfit::PoolUnknown => format!("is in pool {pool}, of which nothing is known yet"),
            Unfit::PoolSaturated => {
                format!("is in pool {pool:?}, which takes no new work: its load is above its high watermark")
            }
        }
    }

    fn told_bar(&self, task: &Wanted) -> String {
        let ended = "an attempt ended with an exec format error";
        if task.barred.meets(self.native) {
            return format!("is {}, on which {ended}", self.native);
        }
        format!("is {} and would emulate {}, on which {ended}", self.native, self.emulated.common(task.barred))
    }

    fn told_pool(&self, task: &Wanted) -> String {
        let wanted = task.pool.as_deref().unwrap_or_default();
        match &self.pool {
            Some(pool) => format!("is in pool {pool:?}, the task must run in pool {wanted:?}"),
            None => format!("is in no pool, the task must run in pool {wanted:?}"),
        }
    }

    fn told_labels(&self, task: &Wanted) -> String {
        let missing: Vec<String> =
            missing(&task.labels, &self.tags).map(|(key, value)| format!("{key}={value}")).collect();
        format!("lacks the tag {}", missing.join(" and "))
    }
}

/// The pairs of a selector that are not among `tags`.
pub(super) fn missing<'a>(selector: &'a Tags, tags: &'a Tags) -> impl Iterator<Item = (&'a str, &'a str)> {
    selector.iter().filter(|(key, value)| tags.as_map().get(*key).is_none_or(|found| found != value))
}
