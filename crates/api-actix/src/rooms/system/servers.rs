//! What is known of servers now, in Prometheus' text format.
//!
//! Units are base units, as Prometheus' naming guide wants them: shares are ratios from 0 to 1, traffic is bytes a second.

use chrono::{DateTime, Utc};
use domain::{
    fleet::ServerStatus,
    observability::{Metric, ServerNow},
};
use std::fmt::Write;

/// A metric's name after `starlink_server_`, what it is, and what a value is in base units.
struct Shown {
    name: &'static str,
    help: &'static str,
    scale: Scale,
}

/// Numerator and denominator, so that no value becomes a longer number than it was.
type Scale = (f64, f64);
const AS_IT_IS: Scale = (1.0, 1.0);
const PERCENT: Scale = (1.0, 100.0);
const MEGABIT: Scale = (125_000.0, 1.0);
const MEGABYTE: Scale = (1_000_000.0, 1.0);

impl Shown {
    fn scaled(&self, value: f64) -> f64 {
        value * self.scale.0 / self.scale.1
    }
}

fn shown(metric: Metric) -> Shown {
    let (name, help, scale) = match metric {
        Metric::CpuUsage => ("cpu_usage_ratio", "How busy all processors are together", PERCENT),
        Metric::MemoryUsage => ("memory_usage_ratio", "How much of the memory is in use", PERCENT),
        Metric::StorageUsage => ("storage_usage_ratio", "How full the storage is", PERCENT),
        Metric::NodeLoad1 => ("load1", "The load average of a minute", AS_IT_IS),
        Metric::NodeLoad5 => ("load5", "The load average of 5 minutes", AS_IT_IS),
        Metric::NodeLoad15 => ("load15", "The load average of 15 minutes", AS_IT_IS),
        Metric::NetworkIn => ("network_receive_bytes_per_second", "What network interfaces receive", MEGABIT),
        Metric::NetworkOut => ("network_transmit_bytes_per_second", "What network interfaces send", MEGABIT),
        Metric::DiskRead => ("disk_read_bytes_per_second", "What is read from disks", MEGABYTE),
        Metric::DiskWrite => ("disk_written_bytes_per_second", "What is written to disks", MEGABYTE),
        Metric::GpuUtilization => ("gpu_utilization_ratio", "How busy the GPUs are", PERCENT),
        Metric::GpuMemoryUtilization => {
            ("gpu_memory_utilization_ratio", "How much of the GPUs' memory is in use", PERCENT)
        }
        Metric::Temperature => ("temperature_celsius", "The hottest of the sensors", AS_IT_IS),
        Metric::SloViolation => ("slo_violation", "Whether it missed what it was promised to do", AS_IT_IS),
        Metric::HealthScore => ("health_score", "How well it is, from 0 to 100", AS_IT_IS),
        Metric::CpuUsagePeak => ("cpu_usage_peak_ratio", "The highest reading of the processors", PERCENT),
        Metric::MemoryUsagePeak => ("memory_usage_peak_ratio", "The highest reading of the memory", PERCENT),
    };
    Shown { name, help, scale }
}

/// The text, a metric at a time: all lines of a metric stand together, and with many servers they are long, so that they
/// are made when they are sent. What is kept until then is a few hundred bytes of each server.
pub(super) fn written(servers: &[ServerNow]) -> impl Iterator<Item = String> + use<> {
    let lines: Vec<Line> = servers.iter().map(Line::of).collect();
    let first = [up(&lines), measured(&lines)];
    let metrics = Metric::ALL.iter().map(move |metric| {
        let shown = shown(*metric);
        let values = lines.iter().filter_map(|line| {
            let value = line.readings.get(*metric)?;
            Some((line, shown.scaled(value).to_string()))
        });
        family(shown.name, shown.help, values)
    });
    first.into_iter().chain(metrics)
}

/// A server, made ready for many lines.
struct Line {
    labels: String,
    is_online: bool,
    measured_at: Option<DateTime<Utc>>,
    readings: domain::observability::Readings,
}

impl Line {
    fn of(now: &ServerNow) -> Self {
        let server = &now.server;
        let mut labels = format!("server_id=\"{}\"", server.id);
        let pool = now.pool.as_ref().map(|pool| pool.as_str());
        for (name, value) in [
            ("server", Some(server.name.as_str())),
            ("pool", pool),
            ("cluster", server.cluster.as_deref()),
            ("zone", server.zone.as_deref()),
        ] {
            if let Some(value) = value {
                labels.extend([",", name, "=\"", &escaped(value), "\""]);
            }
        }
        Self {
            labels,
            is_online: server.status == ServerStatus::Online,
            measured_at: now.measured_at,
            readings: now.readings,
        }
    }
}

fn up(lines: &[Line]) -> String {
    let values = lines.iter().map(|line| (line, if line.is_online { "1" } else { "0" }.to_owned()));
    family("up", "Whether it is online", values)
}

fn measured(lines: &[Line]) -> String {
    let values = lines.iter().filter_map(|line| {
        let at = line.measured_at?;
        Some((line, format!("{}.{:06}", at.timestamp(), at.timestamp_subsec_micros())))
    });
    family("sample_timestamp_seconds", "When it was measured last, however long ago", values)
}

/// The lines of one metric; nothing if no server has it.
fn family<'a>(name: &str, help: &str, values: impl Iterator<Item = (&'a Line, String)>) -> String {
    let mut text = String::new();
    for (line, value) in values {
        if text.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, "# HELP starlink_server_{name} {help}.\n# TYPE starlink_server_{name} gauge\n");
        }
        text.extend(["starlink_server_", name, "{", &line.labels, "} ", &value, "\n"]);
    }
    text
}

/// A label's value, of which nobody but whoever named the server knows what is in it.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_name_ends_no_label() {
        assert_eq!(escaped("a\"b\\c\nd é"), r#"a\"b\\c\nd é"#);
    }

    #[test]
    fn every_metric_has_a_name_of_its_own_in_base_units() {
        let names: std::collections::BTreeSet<&str> = Metric::ALL.iter().map(|metric| shown(*metric).name).collect();
        assert_eq!(names.len(), Metric::COUNT);
        let check = |metric, value: f64, expected: f64| {
            let found = shown(metric).scaled(value);
            assert!((found - expected).abs() < 1e-6, "{metric:?}: {found} is not {expected}");
        };
        check(Metric::CpuUsage, 12.5, 0.125);
        check(Metric::NetworkIn, 8.0, 1_000_000.0);
        check(Metric::DiskRead, 8.0, 8_000_000.0);
        check(Metric::Temperature, -5.5, -5.5);
    }
}
