//! Puts together what alerts are made of.

use crate::composition::Machine;
use domain::{
    fleet::Servers,
    observability::alerts::{AlertPorts, AlertService, AlertWatch, TargetPorts, TargetService, WatchPorts},
};
use infra_diesel::{
    Database, DieselAlertRules, DieselAlertTargets, DieselAlerts, DieselDeliveries, DieselMaintenanceWindows,
    DieselPools, DieselSamples,
};
use notifier::{Messenger, Reach, SetupError};
use std::sync::Arc;

/// Everything about alerts.
pub struct Alerting {
    /// Rules, and the alerts that they made.
    pub service: Arc<AlertService>,
    /// Has alerts begin and end.
    pub watch: Arc<AlertWatch>,
    /// Who is told of alerts, and what is on its way to them.
    pub targets: Arc<TargetService>,
}

impl Alerting {
    /// Over this database, and these samples of these servers.
    ///
    /// # Errors
    /// If messages cannot be sent.
    pub(crate) fn new(
        database: &Database,
        servers: Arc<dyn Servers>,
        samples: &Arc<DieselSamples>,
        machine: &Machine,
        reach: Reach,
    ) -> Result<Self, SetupError> {
        let deliveries = Arc::new(DieselDeliveries::new(database.clone()));
        let rules = Arc::new(DieselAlertRules::new(database.clone()));
        let alerts = Arc::new(DieselAlerts::new(database.clone()));
        let windows = Arc::new(DieselMaintenanceWindows::new(database.clone()));
        let ports = AlertPorts {
            rules: rules.clone(),
            alerts: alerts.clone(),
            deliveries: deliveries.clone(),
            samples: samples.clone(),
            servers: servers.clone(),
            windows: windows.clone(),
            clock: machine.clock.clone(),
        };
        let watch = WatchPorts {
            rules,
            alerts,
            samples: samples.clone(),
            servers,
            pools: Arc::new(DieselPools::new(database.clone())),
            windows,
            clock: machine.clock.clone(),
        };
        let targets = TargetPorts {
            targets: Arc::new(DieselAlertTargets::new(database.clone())),
            deliveries,
            notifier: Arc::new(Messenger::new(reach)?),
            clock: machine.clock.clone(),
            entropy: machine.entropy.clone(),
        };
        Ok(Self {
            service: Arc::new(AlertService::new(ports)),
            watch: Arc::new(AlertWatch::new(watch)),
            targets: Arc::new(TargetService::new(targets)),
        })
    }
}
