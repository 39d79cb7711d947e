use super::*;
use serde_json::{Value, json};

fn read(stats: Value) -> Reading {
    reading(&serde_json::from_value(stats).unwrap())
}

fn at() -> Timestamp {
    DateTime::from_timestamp_nanos(1)
}

fn check_memory(details: &Value) {
    let memory = json!({ "usage": 256_000_000, "limit": 400_000_000, "stats": details });
    let usage = read(json!({ "memory_stats": memory })).since(None, at());
    assert_eq!((usage.memory_bytes, usage.memory_percent), (200_000_000, Some(50.0)), "{details}");
}

#[test]
fn fc_09_memory_is_the_same_for_both_versions_of_control_groups() {
    check_memory(&json!({ "inactive_file": 56_000_000 }));
    check_memory(&json!({ "cache": 100_000_000, "inactive_file": 3, "total_inactive_file": 56_000_000 }));
}

fn counted(container: u64, system: u64) -> Value {
    json!({ "cpu_usage": { "total_usage": container }, "system_cpu_usage": system, "online_cpus": 8 })
}

#[test]
fn fc_09_cpu_is_told_of_a_core_and_of_the_machine() {
    let (before, after) =
        (counted(18_702_324_497_183, 67_684_067_000_000_000), counted(18_702_340_106_497, 67_684_074_960_000_000));
    let check = |usage: Usage| {
        let percents = (usage.cpu_percent.unwrap(), usage.machine_cpu_percent.unwrap());
        assert_eq!(format!("{:.2} {:.3}", percents.0, percents.1), "1.57 0.196");
    };
    let earlier = read(json!({ "cpu_stats": before }));
    check(read(json!({ "cpu_stats": after })).since(Some(&earlier), at()));
    // The engine's own reading before serves as well, where there is no other.
    check(read(json!({ "cpu_stats": after, "precpu_stats": before })).since(None, at()));
    assert_eq!(earlier.since(None, at()).cpu_percent, None);
}

#[test]
fn a_first_reading_has_nothing_before_it() {
    // What the engine writes where it has not counted yet.
    let nothing = json!({ "cpu_usage": { "total_usage": 0 }, "throttling_data": {} });
    let usage = read(json!({ "cpu_stats": counted(5, 10), "precpu_stats": nothing })).since(None, at());
    assert_eq!((usage.cpu_percent, usage.machine_cpu_percent), (None, None));
}

#[test]
fn the_rest_is_added_up() {
    let disks = json!([
        { "op": "Read", "value": 1 }, { "op": "Write", "value": 2 }, { "op": "Total", "value": 3 },
        { "op": "read", "value": 10 }, { "op": "write", "value": 20 },
    ]);
    let usage = read(json!({
        "read": "2026-11-25T09:00:00.5Z",
        "networks": { "eth0": { "rx_bytes": 1, "tx_bytes": 2 }, "eth1": { "rx_bytes": 10, "tx_bytes": 20 } },
        "blkio_stats": { "io_service_bytes_recursive": disks },
        "pids_stats": { "current": 7 },
    }))
    .since(None, at());
    assert_eq!((usage.network_in_bytes, usage.network_out_bytes), (11, 22));
    assert_eq!((usage.disk_read_bytes, usage.disk_write_bytes, usage.pids), (11, 22, Some(7)));
    assert_eq!(usage.at.to_rfc3339(), "2026-11-25T09:00:00.500+00:00");
}

#[test]
fn a_container_that_has_ended_is_told_apart() {
    let ended = read(json!({
        "read": "0001-01-01T00:00:00Z", "cpu_stats": { "cpu_usage": { "total_usage": 0 } },
        "memory_stats": {}, "pids_stats": {}, "blkio_stats": { "io_service_bytes_recursive": null },
    }));
    assert!(!ended.is_of_something_running());
    assert_eq!(ended.since(None, at()).at, at());
    assert!(read(json!({ "cpu_stats": counted(5, 10) })).is_of_something_running());
}
