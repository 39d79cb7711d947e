//! The table of permissions: one row per operation of the API.

use serde::{Deserialize, Serialize};

/// A capability of the product; API tokens are scoped to rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Room {
    /// Users, tokens, sessions.
    Identity,
    /// The audit log.
    Audit,
    /// Servers.
    Fleet,
    /// Resource pools.
    Pools,
    /// Tasks and where they run.
    Scheduling,
    /// Containers and images.
    Containers,
    /// What servers were measured to be at.
    Observability,
}

impl Room {
    /// Every room.
    pub const ALL: [Self; 7] = [
        Self::Identity,
        Self::Audit,
        Self::Fleet,
        Self::Pools,
        Self::Scheduling,
        Self::Containers,
        Self::Observability,
    ];

    /// The room's name on every floor.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Audit => "audit",
            Self::Fleet => "fleet",
            Self::Pools => "pools",
            Self::Scheduling => "scheduling",
            Self::Containers => "containers",
            Self::Observability => "observability",
        }
    }
}

/// What an operation asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: open to everybody.
    Public,
    /// To be somebody.
    Known,
    /// To read in this room.
    Read(Room),
    /// To change things in this room.
    Change(Room),
    /// To manage users and tokens.
    Manage(Room),
    /// To be the agent of a server.
    Agent,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $action:literal, $access:expr;)+) => {
        /// Everything that the API can be asked to do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $variant,)+
        }

        impl Operation {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its `operationId` in the API document.
            #[must_use]
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)+ }
            }

            /// Its name in the audit log.
            #[must_use]
            pub fn action(self) -> &'static str {
                match self { $(Self::$variant => $action,)+ }
            }

            /// Who may do it.
            #[must_use]
            pub fn access(self) -> Access {
                match self { $(Self::$variant => $access,)+ }
            }
        }
    };
}

operations! {
    /// Whether the process is alive.
    HealthGet = "health_get", "health.get", Access::Public;
    /// Whether it can do its work.
    ReadyGet = "ready_get", "ready.get", Access::Public;
    /// The API document.
    OpenapiGet = "openapi_get", "openapi.get", Access::Public;
    /// Metrics of the product itself, for Prometheus.
    MetricsGet = "metrics_get", "metrics.get", Access::Known;
    /// A stream of changes.
    EventStream = "event_stream", "event.stream", Access::Known;
    /// Sign in with a password.
    AuthLogin = "auth_login", "session.create", Access::Public;
    /// Sign out.
    AuthLogout = "auth_logout", "session.delete", Access::Known;
    /// Who am I.
    AuthMe = "auth_me", "session.get", Access::Known;
    /// A one-time ticket for a WebSocket.
    TicketCreate = "ticket_create", "ticket.create", Access::Known;
    /// Make an API token.
    TokenCreate = "token_create", "token.create", Access::Manage(Room::Identity);
    /// List API tokens.
    TokenList = "token_list", "token.list", Access::Manage(Room::Identity);
    /// Look at an API token.
    TokenGet = "token_get", "token.get", Access::Manage(Room::Identity);
    /// Revoke an API token.
    TokenDelete = "token_delete", "token.delete", Access::Manage(Room::Identity);
    /// Make a user.
    UserCreate = "user_create", "user.create", Access::Manage(Room::Identity);
    /// List users.
    UserList = "user_list", "user.list", Access::Manage(Room::Identity);
    /// Look at a user.
    UserGet = "user_get", "user.get", Access::Manage(Room::Identity);
    /// Change a user.
    UserUpdate = "user_update", "user.update", Access::Manage(Room::Identity);
    /// Remove a user.
    UserDelete = "user_delete", "user.delete", Access::Manage(Room::Identity);
    /// Read the audit log.
    AuditLogList = "audit_log_list", "audit.list", Access::Read(Room::Audit);
    /// Check the audit log.
    AuditVerify = "audit_verify", "audit.verify", Access::Read(Room::Audit);
    /// Export the audit log.
    AuditExport = "audit_export", "audit.export", Access::Read(Room::Audit);
    /// Register a server.
    ServerCreate = "server_create", "server.create", Access::Change(Room::Fleet);
    /// List servers.
    ServerList = "server_list", "server.list", Access::Read(Room::Fleet);
    /// Look at a server.
    ServerGet = "server_get", "server.get", Access::Read(Room::Fleet);
    /// Change a server.
    ServerUpdate = "server_update", "server.update", Access::Change(Room::Fleet);
    /// Remove a server.
    ServerDelete = "server_delete", "server.delete", Access::Change(Room::Fleet);
    /// Take a server out of scheduling.
    ServerCordon = "server_cordon", "server.cordon", Access::Change(Room::Fleet);
    /// Put a server back into scheduling.
    ServerUncordon = "server_uncordon", "server.uncordon", Access::Change(Room::Fleet);
    /// Plan a maintenance window of a server.
    MaintenanceCreate = "maintenance_create", "maintenance.create", Access::Change(Room::Fleet);
    /// List maintenance windows.
    MaintenanceList = "maintenance_list", "maintenance.list", Access::Read(Room::Fleet);
    /// Look at a maintenance window.
    MaintenanceGet = "maintenance_get", "maintenance.get", Access::Read(Room::Fleet);
    /// Change, cancel or end a maintenance window.
    MaintenanceUpdate = "maintenance_update", "maintenance.update", Access::Change(Room::Fleet);
    /// Make a join token.
    EnrollmentCreate = "enrollment_create", "enrollment.create", Access::Manage(Room::Fleet);
    /// List join tokens.
    EnrollmentList = "enrollment_list", "enrollment.list", Access::Read(Room::Fleet);
    /// Look at a join token.
    EnrollmentGet = "enrollment_get", "enrollment.get", Access::Read(Room::Fleet);
    /// Revoke a join token.
    EnrollmentDelete = "enrollment_delete", "enrollment.delete", Access::Manage(Room::Fleet);
    /// List what agents were told to do.
    OperationList = "operation_list", "operation.list", Access::Read(Room::Fleet);
    /// Look at what an agent was told to do.
    OperationGet = "operation_get", "operation.get", Access::Read(Room::Fleet);
    /// End what an agent was told to do.
    OperationCancel = "operation_cancel", "operation.cancel", Access::Change(Room::Fleet);
    /// List what the agent of a server was told to do.
    ServerOperationList = "server_operation_list", "server.list_operations", Access::Read(Room::Fleet);
    /// Become the agent of a server.
    AgentEnroll = "agent_enroll", "agent.enroll", Access::Public;
    /// Say that an agent has started.
    AgentSession = "agent_session", "agent.session", Access::Agent;
    /// Ask what is to be done.
    AgentPoll = "agent_poll", "agent.poll", Access::Agent;
    /// Say what the machine is.
    AgentInventory = "agent_inventory", "agent.inventory", Access::Agent;
    /// Say that something runs.
    AgentStarted = "agent_started", "agent.started", Access::Agent;
    /// Say what something is at.
    AgentProgress = "agent_progress", "agent.progress", Access::Agent;
    /// Say how something ended.
    AgentResult = "agent_result", "agent.result", Access::Agent;
    /// Send what was asked for.
    AgentStream = "agent_stream", "agent.stream", Access::Agent;
    /// Say what containers the machine's engine has.
    AgentContainers = "agent_containers", "agent.containers", Access::Agent;
    /// Make a pool.
    PoolCreate = "pool_create", "pool.create", Access::Change(Room::Pools);
    /// List pools.
    PoolList = "pool_list", "pool.list", Access::Read(Room::Pools);
    /// Look at a pool.
    PoolGet = "pool_get", "pool.get", Access::Read(Room::Pools);
    /// Change a pool.
    PoolUpdate = "pool_update", "pool.update", Access::Change(Room::Pools);
    /// Remove a pool.
    PoolDelete = "pool_delete", "pool.delete", Access::Change(Room::Pools);
    /// Post a task.
    TaskCreate = "task_create", "task.create", Access::Change(Room::Scheduling);
    /// Show where a task would go, without posting it.
    TaskDryRun = "task_dry_run", "task.dry_run", Access::Read(Room::Scheduling);
    /// List tasks.
    TaskList = "task_list", "task.list", Access::Read(Room::Scheduling);
    /// Look at a task.
    TaskGet = "task_get", "task.get", Access::Read(Room::Scheduling);
    /// Show where a task that is stored would go now.
    TaskPlan = "task_plan", "task.plan", Access::Read(Room::Scheduling);
    /// List the attempts of a task.
    TaskAttemptList = "task_attempt_list", "task.list_attempts", Access::Read(Room::Scheduling);
    /// Read the output of a task.
    TaskLogs = "task_logs", "task.logs", Access::Read(Room::Scheduling);
    /// Place a task now.
    TaskDispatch = "task_dispatch", "task.dispatch", Access::Change(Room::Scheduling);
    /// Say that a task runs.
    TaskStart = "task_start", "task.start", Access::Change(Room::Scheduling);
    /// Say that a task ended.
    TaskComplete = "task_complete", "task.complete", Access::Change(Room::Scheduling);
    /// End a task.
    TaskCancel = "task_cancel", "task.cancel", Access::Change(Room::Scheduling);
    /// Run a task again that ended badly.
    TaskRetry = "task_retry", "task.retry", Access::Change(Room::Scheduling);
    /// Remove a task.
    TaskDelete = "task_delete", "task.delete", Access::Change(Room::Scheduling);
    /// List containers.
    ContainerList = "container_list", "container.list", Access::Read(Room::Containers);
    /// Look at a container.
    ContainerGet = "container_get", "container.get", Access::Read(Room::Containers);
    /// Start a container on a server.
    ContainerCreate = "container_create", "task.create", Access::Change(Room::Scheduling);
    /// Start a container of an image on a server.
    ServerDocker = "server_docker", "task.create", Access::Change(Room::Scheduling);
    /// Do something to a container.
    ContainerAct = "container_act", "container.act", Access::Change(Room::Containers);
    /// Remove a container.
    ContainerDelete = "container_delete", "container.remove", Access::Change(Room::Containers);
    /// Read the output of a container.
    ContainerLogs = "container_logs", "container.logs", Access::Read(Room::Containers);
    /// The same at its other path.
    ContainerLogsAlias = "container_logs_alias", "container.logs", Access::Read(Room::Containers);
    /// Watch what a container uses.
    ContainerStats = "container_stats", "container.stats", Access::Read(Room::Containers);
    /// Run a program in a container.
    ContainerExec = "container_exec", "container.exec", Access::Change(Room::Containers);
    /// List the images of a server.
    ImageList = "image_list", "image.list", Access::Read(Room::Containers);
    /// Pull an image to a server.
    ImagePull = "image_pull", "image.pull", Access::Change(Room::Containers);
    /// Remove images that nothing uses from a server.
    ImagePrune = "image_prune", "image.prune", Access::Change(Room::Containers);
    /// Say what the machine was measured to be at.
    AgentMetrics = "agent_metrics", "agent.metrics", Access::Agent;
    /// Store what a server was measured to be at.
    SampleCreate = "sample_create", "sample.create", Access::Change(Room::Observability);
    /// Store what Prometheus has measured.
    SampleWrite = "sample_write", "sample.write", Access::Change(Room::Observability);
    /// List what a server was measured to be at.
    SampleList = "sample_list", "sample.list", Access::Read(Room::Observability);
    /// Look at the newest of it.
    SampleLatest = "sample_latest", "sample.latest", Access::Read(Room::Observability);
    /// Show how a metric went.
    TrendGet = "trend_get", "trend.get", Access::Read(Room::Observability);
    /// Look at everything at a glance.
    OverviewGet = "overview_get", "overview.get", Access::Read(Room::Observability);
    /// Count servers, pools and tasks.
    DashboardSummary = "dashboard_summary", "dashboard.summary", Access::Read(Room::Observability);
    /// Look at how the fleet is.
    DashboardHealth = "dashboard_health", "dashboard.health", Access::Read(Room::Observability);
    /// Make a rule that makes alerts.
    AlertRuleCreate = "alert_rule_create", "alert_rule.create", Access::Change(Room::Observability);
    /// List rules that make alerts.
    AlertRuleList = "alert_rule_list", "alert_rule.list", Access::Read(Room::Observability);
    /// Look at a rule that makes alerts.
    AlertRuleGet = "alert_rule_get", "alert_rule.get", Access::Read(Room::Observability);
    /// Change a rule that makes alerts.
    AlertRuleUpdate = "alert_rule_update", "alert_rule.update", Access::Change(Room::Observability);
    /// Remove a rule that makes alerts.
    AlertRuleDelete = "alert_rule_delete", "alert_rule.delete", Access::Change(Room::Observability);
    /// Show what a rule would have done.
    AlertRulePreview = "alert_rule_preview", "alert_rule.preview", Access::Read(Room::Observability);
    /// List alerts.
    AlertList = "alert_list", "alert.list", Access::Read(Room::Observability);
    /// Look at an alert.
    AlertGet = "alert_get", "alert.get", Access::Read(Room::Observability);
    /// Say that somebody is on an alert.
    AlertAcknowledge = "alert_acknowledge", "alert.acknowledge", Access::Change(Room::Observability);
    /// Make somebody who is told of alerts.
    AlertTargetCreate = "alert_target_create", "alert_target.create", Access::Manage(Room::Observability);
    /// List those who are told of alerts.
    AlertTargetList = "alert_target_list", "alert_target.list", Access::Read(Room::Observability);
    /// Look at somebody who is told of alerts.
    AlertTargetGet = "alert_target_get", "alert_target.get", Access::Read(Room::Observability);
    /// Change somebody who is told of alerts.
    AlertTargetUpdate = "alert_target_update", "alert_target.update", Access::Manage(Room::Observability);
    /// Remove somebody who is told of alerts.
    AlertTargetDelete = "alert_target_delete", "alert_target.delete", Access::Manage(Room::Observability);
    /// Send a test message.
    AlertTargetTest = "alert_target_test", "alert_target.test", Access::Manage(Room::Observability);
    /// Compare what is reserved with what tasks hold.
    LedgerCheck = "ledger_check", "ledger.check", Access::Read(Room::Scheduling);
    /// Set what is reserved to what tasks hold.
    LedgerMend = "ledger_mend", "ledger.mend", Access::Change(Room::Scheduling);
}

impl Operation {
    /// The operation with this `operationId`.
    #[must_use]
    pub fn by_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.id() == id)
    }
}
