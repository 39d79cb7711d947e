//! A machine whose work is a table: it survives the agent, as containers do. What a task is called says how it behaves:
//! `quick` ends well at once, `failing` with 3, `long` runs until it is told to end, `slow` is pulled for ever, `broken`
//! does not start, `stubborn` cannot be ended at first.

use async_trait::async_trait;
use domain::{
    containers::{EngineImage, ImageName, Platform},
    fleet::{
        Architecture,
        protocol::{Order, Outcome},
    },
    scheduling::reason,
};
use starlink_agent::{
    drivers::Driver,
    work::{Exit, Failure, Work, WorkId},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::Notify;

/// Is told of every step of a driver, before and after it takes effect.
pub(crate) type Hook = Arc<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Default)]
pub(crate) struct Table {
    /// What is there; `None` while it runs.
    pub(crate) works: BTreeMap<WorkId, Option<Exit>>,
    /// How often each was really run.
    pub(crate) runs: BTreeMap<WorkId, usize>,
    /// What was done that runs no task.
    pub(crate) deeds: Vec<Order>,
    /// What was asked of the driver.
    pub(crate) steps: Vec<String>,
    /// With how much grace work was ended.
    pub(crate) graces: Vec<Duration>,
    /// How often ending fails.
    pub(crate) stubborn: usize,
    /// Whether the engine is away.
    pub(crate) away: bool,
}

#[derive(Default)]
pub(crate) struct Machine {
    table: Mutex<Table>,
    bell: Notify,
    hook: Mutex<Option<Hook>>,
}

impl Machine {
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// Where the hook says so, the step never goes on: the agent is about to crash.
    pub(crate) fn hook(&self, hook: impl Fn(&str) -> bool + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    pub(crate) fn unhook(&self) {
        *self.hook.lock().unwrap() = None;
    }

    pub(crate) fn exit(&self, id: &WorkId, exit: Exit) {
        if let Some(work) = self.table().works.get_mut(id) {
            work.get_or_insert(exit);
        }
        self.bell.notify_waiters();
    }

    pub(crate) fn put(&self, id: &WorkId) {
        self.table().works.insert(id.clone(), None);
    }

    pub(crate) fn forget(&self, id: &WorkId) {
        self.table().works.remove(id);
        self.bell.notify_waiters();
    }

    pub(crate) fn runs(&self) -> usize {
        self.table().runs.values().sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table().works.is_empty()
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Table) -> bool) {
        let wait = async {
            loop {
                let rung = self.bell.notified();
                let mut rung = std::pin::pin!(rung);
                rung.as_mut().enable();
                if is_so(&self.table()) {
                    return;
                }
                rung.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        assert!(waited.is_ok(), "waited in vain until {what}; steps: {:#?}", self.table().steps);
    }

    async fn step(&self, step: &str) {
        self.table().steps.push(step.to_owned());
        self.bell.notify_waiters();
        let hook = self.hook.lock().unwrap().clone();
        if hook.is_some_and(|hook| hook(step)) {
            std::future::pending::<()>().await;
        }
    }
}

pub(crate) fn exit(code: i64) -> Exit {
    Exit { code: Some(code), signal: None, failure: None, lost: false, started_at: None, finished_at: None }
}

pub(crate) fn killed(signal: i64) -> Exit {
    Exit { code: None, signal: Some(signal), ..exit(0) }
}

pub(crate) struct TableDriver(pub(crate) Arc<Machine>);

#[async_trait]
impl Driver for TableDriver {
    async fn start(&self, work: &Work, progress: &(dyn Fn(String) + Send + Sync)) -> Result<(), Failure> {
        let Self(machine) = self;
        machine.step("start").await;
        progress("pulling image: 40 %".to_owned());
        match work.spec.name.as_str() {
            "slow" => std::future::pending::<()>().await,
            "broken" => return Err(Failure::new(reason::IMAGE_MISSING, "there is no such image")),
            _ => {}
        }
        let is_quick = match work.spec.name.as_str() {
            "quick" => Some(exit(0)),
            "failing" => Some(exit(3)),
            _ => None,
        };
        {
            let mut table = machine.table();
            if !table.works.contains_key(&work.id) {
                table.works.insert(work.id.clone(), is_quick);
                *table.runs.entry(work.id.clone()).or_default() += 1;
            }
        }
        machine.step("started").await;
        Ok(())
    }

    async fn wait(&self, work: &Work) -> Exit {
        let Self(machine) = self;
        machine.step("wait").await;
        let exit = loop {
            let rung = machine.bell.notified();
            let mut rung = std::pin::pin!(rung);
            rung.as_mut().enable();
            match machine.table().works.get(&work.id) {
                None => break Exit::lost("it is not there"),
                Some(Some(exit)) => break exit.clone(),
                Some(None) => {}
            }
            rung.await;
        };
        machine.step("ended").await;
        exit
    }

    async fn stop(&self, work: &Work, grace: Duration) -> Result<(), Failure> {
        let Self(machine) = self;
        machine.step("stop").await;
        {
            let mut table = machine.table();
            table.graces.push(grace);
            if table.stubborn > 0 {
                table.stubborn -= 1;
                return Err(Failure::new(reason::ENGINE_GONE, "the engine is away"));
            }
        }
        machine.exit(&work.id, killed(15));
        machine.step("stopped").await;
        Ok(())
    }

    async fn remove(&self, work: &Work) -> Result<(), Failure> {
        let Self(machine) = self;
        machine.step("remove").await;
        machine.table().works.remove(&work.id);
        machine.step("removed").await;
        Ok(())
    }

    async fn image(&self, name: &ImageName) -> Result<Option<EngineImage>, Failure> {
        match name.as_str() {
            "alpine" => {
                Ok(Some(EngineImage { id: "sha256:a1".to_owned(), platform: Some(Platform::of(Architecture::Arm64)) }))
            }
            "trouble" => Err(Failure::new(reason::ENGINE_GONE, "the engine is away")),
            _ => Ok(None),
        }
    }

    async fn bring_about(
        &self,
        order: &Order,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Option<Outcome>, Failure> {
        let Self(machine) = self;
        machine.step("deed").await;
        match order {
            Order::ImagePull(pull) if pull.name.as_str() == "slow" => {
                progress("pulling image: 40 %".to_owned());
                std::future::pending::<()>().await;
            }
            Order::ImagePull(_) => return Err(Failure::new(reason::IMAGE_MISSING, "there is no such image")),
            _ => {}
        }
        machine.table().deeds.push(order.clone());
        machine.step("done").await;
        Ok(None)
    }

    async fn found(&self, installation: &str) -> Result<Vec<WorkId>, Failure> {
        let Self(machine) = self;
        machine.step("find").await;
        let table = machine.table();
        if table.away {
            return Err(Failure::new(reason::ENGINE_GONE, "the engine is away"));
        }
        Ok(table.works.keys().filter(|id| &*id.installation == installation).cloned().collect())
    }
}
