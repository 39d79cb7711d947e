//! Puts together what alerts are made of.

use crate::composition::Machine;
use domain::{
    fleet::Servers,
    observability::alerts::{AlertPorts, AlertService, AlertWatch, WatchPorts},
};
use infra_diesel::{Database, DieselAlertRules, DieselAlerts, DieselMaintenanceWindows, DieselPools, DieselSamples};
use std::sync::Arc;

/// Everything about alerts.
pub struct Alerting {
    /// Rules, and the alerts that they made.
    pub service: Arc<AlertService>,
    /// Has alerts begin and end.
    pub watch: Arc<AlertWatch>,
}

impl Alerting {
    /// Over this database, and these samples of these servers.
    pub(crate) fn new(
        database: &Database,
        servers: Arc<dyn Servers>,
        samples: &Arc<DieselSamples>,
        machine: &Machine,
    ) -> Self {
        let rules = Arc::new(DieselAlertRules::new(database.clone()));
        let alerts = Arc::new(DieselAlerts::new(database.clone()));
        let windows = Arc::new(DieselMaintenanceWindows::new(database.clone()));
        let ports = AlertPorts {
            rules: rules.clone(),
            alerts: alerts.clone(),
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
        Self { service: Arc::new(AlertService::new(ports)), watch: Arc::new(AlertWatch::new(watch)) }
    }
}
