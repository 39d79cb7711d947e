use super::*;
use crate::{
    clock::Timestamp,
    fleet::{Architecture, NewServer, ServerStatus},
    testing::name,
    text::Tags,
    units::Resources,
};

fn server(id: i64, called: &str) -> Arc<RosterEntry> {
    let server = NewServer {
        name: name(called),
        architecture: Architecture::Arm64,
        status: ServerStatus::Online,
        capacity: Resources::default(),
        gpu_model: None,
        location: None,
        cluster: None,
        zone: None,
        pool_id: None,
        tags: Tags::default(),
    };
    Arc::new(RosterEntry::new(Arc::new(server.into_server(ServerId(id), Timestamp::UNIX_EPOCH))))
}

#[test]
fn a_series_is_of_the_server_that_its_labels_name() {
    let servers = [
        server(1, "edge-1"),
        server(2, "edge-2.example.com"),
        server(3, "10.0.0.3"),
        server(4, "fd00::4"),
        server(5, "7"),
    ];
    let names = Names::of(&servers);
    let check = |labels: &[(&str, &str)], expected: Result<i64, Option<&str>>| {
        let series = Series::new(labels.iter().copied(), Vec::new());
        assert_eq!(names.owner(&series), expected.map(ServerId), "{labels:?}");
    };
    for instance in ["edge-1", "edge-1:9100", "http://edge-1:9100/metrics", "edge-1/metrics"] {
        check(&[("instance", instance)], Ok(1));
    }
    check(&[("instance", "edge-2.example.com:9100")], Ok(2));
    check(&[("instance", "10.0.0.3:9100")], Ok(3));
    for instance in ["fd00::4", "[fd00::4]", "[fd00::4]:9100"] {
        check(&[("instance", instance)], Ok(4));
    }
    // Only as a whole, and no part of a name.
    check(&[("instance", "edge-2:9100")], Err(Some("edge-2")));
    check(&[("instance", "EDGE-1")], Err(Some("EDGE-1")));
    // What says who it is decides alone, and names stand before numbers.
    check(&[("instance", "10.0.0.3:9100"), ("starlink_server", "edge-1")], Ok(1));
    check(&[("instance", "edge-1:9100"), ("starlink_server", "edge-9")], Err(Some("edge-9")));
    check(&[("starlink_server", "2")], Ok(2));
    check(&[("starlink_server", "7")], Ok(5));
    check(&[("starlink_server", "99")], Err(Some("99")));
    check(&[("starlink_server", ""), ("instance", "edge-1")], Ok(1));
    // Then any label that names one.
    check(&[("instance", "localhost:9100"), ("host", "edge-1")], Ok(1));
    check(&[("nodename", "edge-1"), ("instance", "10.0.0.9:9100")], Ok(1));
    check(&[("host", "edge-9")], Err(Some("edge-9")));
    check(&[("job", "edge-1")], Err(None));
}

fn means(labels: &[(&str, &str)]) -> Option<Meaning> {
    meaning(&Series::new(labels.iter().copied(), Vec::new()))
}

#[test]
fn own_metrics_are_taken_as_they_are() {
    for metric in Metric::ALL {
        assert_eq!(means(&[("__name__", metric.as_str())]), Some(Meaning::Whole(*metric)));
        assert_eq!(means(&[("__name__", &format!("starlink_{metric}"))]), Some(Meaning::Whole(*metric)));
    }
    for name in ["", "up", "starlink_", "starlink_server_up", "node_cpu", "process_cpu_seconds_total"] {
        assert_eq!(means(&[("__name__", name)]), None, "{name}");
    }
}

#[test]
fn what_is_counted_twice_is_left_out() {
    let check = |name: &str, label: &str, value: &str, expected: bool| {
        let found = means(&[("__name__", name), (label, value)]);
        assert_eq!(found == Some(Meaning::LeftOut), expected, "{name} of {value}: {found:?}");
    };
    for device in ["eth0", "enp3s0f1", "wlan0", "ib0", "br0", "brain"] {
        check("node_network_receive_bytes_total", "device", device, false);
    }
    for device in
        ["lo", "veth12ab", "docker0", "br-0a1b", "virbr0", "eth0.100", "bond0", "cali1", "flannel.1", "wg0", "tun3"]
    {
        check("node_network_transmit_bytes_total", "device", device, true);
    }
    for (device, expected) in [("sda", false), ("nvme0n1", false), ("dm-0", true), ("md127", true), ("loop3", true)] {
        check("node_disk_read_bytes_total", "device", device, expected);
    }
    for (mount, expected) in [("/", false), ("/boot", true), ("/run", true)] {
        check("node_filesystem_avail_bytes", "mountpoint", mount, expected);
    }
}

#[test]
fn parts_are_told_apart_by_what_they_are_of_and_not_by_who_tells() {
    let cpu = |cpu: &str, mode: &str, replica: &str| {
        means(&[("__name__", "node_cpu_seconds_total"), ("replica", replica), ("cpu", cpu), ("mode", mode)])
    };
    assert_eq!(cpu("0", "idle", "a"), cpu("0", "idle", "b"));
    assert_ne!(cpu("0", "idle", "a"), cpu("1", "idle", "a"));
    assert_ne!(cpu("0", "idle", "a"), cpu("0", "iowait", "a"));
    let role = |mode: &str| match cpu("0", mode, "a") {
        Some(Meaning::Part(Family::Cpu, key)) => key.role,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (role("idle"), role("iowait"), role("user"), role("steal")),
        (Role::Free, Role::Free, Role::Used, Role::Used)
    );
}
