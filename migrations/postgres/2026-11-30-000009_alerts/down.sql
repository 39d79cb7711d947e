DROP TABLE alert_tries;
DROP TABLE alert_deliveries;
DROP TABLE alert_targets;
DROP TABLE alert_changes;
DROP TABLE alerts;
DROP TABLE alert_rules;
