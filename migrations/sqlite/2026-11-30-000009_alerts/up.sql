-- Rules that make alerts. "spec" is what a rule says, as JSON.
CREATE TABLE alert_rules (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    spec TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL
) STRICT;

-- One occurrence of a rule on a server or pool. It outlives both, so it says what they were called, and refers to neither.
CREATE TABLE alerts (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    rule_id INTEGER NOT NULL,
    rule_name TEXT NOT NULL,
    severity TEXT NOT NULL,
    metric TEXT,
    subject_kind TEXT NOT NULL,
    subject_id INTEGER NOT NULL,
    subject_name TEXT NOT NULL,
    state TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    fired_at_us INTEGER,
    acknowledged_at_us INTEGER,
    acknowledged_by TEXT,
    note TEXT,
    ended_at_us INTEGER CHECK ((state = 'resolved') = (ended_at_us IS NOT NULL)),
    reason TEXT,
    value REAL NOT NULL,
    notified_at_us INTEGER,
    revision INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL
) STRICT;
-- There is at most one alert of a rule and subject that has not ended.
CREATE UNIQUE INDEX alerts_open ON alerts (rule_id, subject_kind, subject_id) WHERE ended_at_us IS NULL;
CREATE INDEX alerts_subject ON alerts (subject_kind, subject_id);
CREATE INDEX alerts_ended ON alerts (ended_at_us) WHERE ended_at_us IS NOT NULL;

-- What happened to alerts, in order.
CREATE TABLE alert_changes (
    alert_id INTEGER NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    value REAL NOT NULL,
    actor TEXT NOT NULL,
    note TEXT,
    PRIMARY KEY (alert_id, number)
) STRICT;

-- Who is told of alerts. "secret" is what it takes to reach them; nothing but the sending of messages reads it.
CREATE TABLE alert_targets (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    spec TEXT NOT NULL,
    secret TEXT,
    revision INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL
) STRICT;

-- Messages to them. "due_at_us" is when a message is to be tried next, as long as it is to be tried at all.
CREATE TABLE alert_deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    alert_id INTEGER REFERENCES alerts (id) ON DELETE CASCADE,
    target_id INTEGER NOT NULL,
    target_name TEXT NOT NULL,
    event TEXT NOT NULL,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL,
    due_at_us INTEGER CHECK ((state = 'pending') = (due_at_us IS NOT NULL)),
    created_at_us INTEGER NOT NULL,
    finished_at_us INTEGER
) STRICT;
CREATE INDEX alert_deliveries_due ON alert_deliveries (due_at_us) WHERE due_at_us IS NOT NULL;
CREATE INDEX alert_deliveries_alert ON alert_deliveries (alert_id);

-- What came of each try.
CREATE TABLE alert_tries (
    delivery_id INTEGER NOT NULL REFERENCES alert_deliveries (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    status INTEGER,
    error TEXT,
    PRIMARY KEY (delivery_id, number)
) STRICT;

-- The rules that there are from the start. Who changes or removes one does so for good.
INSERT INTO alert_rules (name, enabled, spec, revision, created_by, created_at_us, updated_at_us)
SELECT name, 1, spec, 1, 'system:alerts', at_us, at_us
FROM (
    SELECT 1 AS place, 'CPU usage high' AS name,
        '{"condition":{"kind":"metric","metric":"cpu_usage","comparison":"gte","threshold":85.0,"clear_threshold":80.0},"for_minutes":5,"severity":"warning","selector":{"pool_id":null,"cluster":null,"zone":null,"tags":{}},"quiet_hours":[],"target_ids":[]}' AS spec
    UNION ALL
    SELECT 2, 'CPU usage critical',
        '{"condition":{"kind":"metric","metric":"cpu_usage","comparison":"gt","threshold":92.0,"clear_threshold":87.0},"for_minutes":5,"severity":"critical","selector":{"pool_id":null,"cluster":null,"zone":null,"tags":{}},"quiet_hours":[],"target_ids":[]}'
    UNION ALL
    SELECT 3, 'Memory usage high',
        '{"condition":{"kind":"metric","metric":"memory_usage","comparison":"gte","threshold":85.0,"clear_threshold":80.0},"for_minutes":5,"severity":"warning","selector":{"pool_id":null,"cluster":null,"zone":null,"tags":{}},"quiet_hours":[],"target_ids":[]}'
    UNION ALL
    SELECT 4, 'Memory usage critical',
        '{"condition":{"kind":"metric","metric":"memory_usage","comparison":"gt","threshold":92.0,"clear_threshold":87.0},"for_minutes":5,"severity":"critical","selector":{"pool_id":null,"cluster":null,"zone":null,"tags":{}},"quiet_hours":[],"target_ids":[]}'
    UNION ALL
    SELECT 5, 'Storage usage high',
        '{"condition":{"kind":"metric","metric":"storage_usage","comparison":"gte","threshold":85.0,"clear_threshold":80.0},"for_minutes":5,"severity":"warning","selector":{"pool_id":null,"cluster":null,"zone":null,"tags":{}},"quiet_hours":[],"target_ids":[]}'
    UNION ALL
    SELECT 6, 'Storage usage critical',
        '{"condition":{"kind":"metric","metric":"storage_usage","comparison":"gt","threshold":92.0,"clear_threshold":87.0},"for_minutes":5,"severity":"critical","selector":{"pool_id":null,"cluster":null,"zone":null,"tags":{}},"quiet_hours":[],"target_ids":[]}'
    UNION ALL
    SELECT 7, 'SLO violated',
        '{"condition":{"kind":"metric","metric":"slo_violation","comparison":"gte","threshold":1.0,"clear_threshold":null},"for_minutes":0,"severity":"warning","selector":{"pool_id":null,"cluster":null,"zone":null,"tags":{}},"quiet_hours":[],"target_ids":[]}'
    UNION ALL
    SELECT 8, 'Server offline',
        '{"condition":{"kind":"server_status"},"for_minutes":2,"severity":"critical","selector":{"pool_id":null,"cluster":null,"zone":null,"tags":{}},"quiet_hours":[],"target_ids":[]}'
    UNION ALL
    SELECT 9, 'Pool over its high watermark',
        '{"condition":{"kind":"pool_saturation"},"for_minutes":0,"severity":"warning","selector":{"pool_id":null,"cluster":null,"zone":null,"tags":{}},"quiet_hours":[],"target_ids":[]}'
) AS defaults, (SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000 AS at_us) AS clock
ORDER BY place;
