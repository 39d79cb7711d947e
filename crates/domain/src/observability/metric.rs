use crate::words::words;

words! {
    /// What is measured of a server.
    Metric {
        /// How busy its processors are, all together: 100 is all of them.
        CpuUsage = "cpu_usage",
        /// How much of its memory is in use that could not be had back at once.
        MemoryUsage = "memory_usage",
        /// How full the file system is that work is kept on.
        StorageUsage = "storage_usage",
        /// The load average of a minute.
        NodeLoad1 = "node_load1",
        /// The load average of 5 minutes.
        NodeLoad5 = "node_load5",
        /// The load average of 15 minutes.
        NodeLoad15 = "node_load15",
        /// What its network interfaces receive.
        NetworkIn = "network_in_mbps",
        /// What its network interfaces send.
        NetworkOut = "network_out_mbps",
        /// What is read from its disks.
        DiskRead = "disk_read_mbps",
        /// What is written to its disks.
        DiskWrite = "disk_write_mbps",
        /// How busy its GPUs are, on average.
        GpuUtilization = "gpu_utilization",
        /// How much of its GPUs' memory is in use.
        GpuMemoryUtilization = "gpu_memory_utilization",
        /// The hottest of its sensors.
        Temperature = "temperature",
        /// Whether it missed what it was promised to do: 1 or 0, so that the mean is the part of the time.
        SloViolation = "slo_violation",
        /// How well it is, in the opinion of whoever measured it.
        HealthScore = "health_score",
        /// The highest of the readings that [`Self::CpuUsage`] is the mean of.
        CpuUsagePeak = "cpu_usage_peak",
        /// The highest of the readings that [`Self::MemoryUsage`] is the mean of.
        MemoryUsagePeak = "memory_usage_peak",
    }
}

/// What a metric is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// 0 to 100.
    Percent,
    /// A number of processes that want to run.
    Load,
    /// Megabits a second, of a million bits.
    MegabitsPerSecond,
    /// Megabytes a second, of a million bytes.
    MegabytesPerSecond,
    /// Degrees Celsius.
    Celsius,
    /// 0 to 100, 100 is best.
    Score,
    /// 0 or 1.
    Truth,
}

impl Unit {
    /// The least and the most that a value can be.
    #[must_use]
    pub fn bounds(self) -> (f64, f64) {
        match self {
            Self::Percent | Self::Score => (0.0, 100.0),
            Self::Load => (0.0, 1e6),
            Self::MegabitsPerSecond | Self::MegabytesPerSecond => (0.0, 1e9),
            // From absolute zero to what no sensor survives.
            Self::Celsius => (-273.15, 1000.0),
            Self::Truth => (0.0, 1.0),
        }
    }
}

impl Metric {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// What it is counted in.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::CpuUsage
            | Self::MemoryUsage
            | Self::StorageUsage
            | Self::GpuUtilization
            | Self::GpuMemoryUtilization
            | Self::CpuUsagePeak
            | Self::MemoryUsagePeak => Unit::Percent,
            Self::NodeLoad1 | Self::NodeLoad5 | Self::NodeLoad15 => Unit::Load,
            Self::NetworkIn | Self::NetworkOut => Unit::MegabitsPerSecond,
            Self::DiskRead | Self::DiskWrite => Unit::MegabytesPerSecond,
            Self::Temperature => Unit::Celsius,
            Self::SloViolation => Unit::Truth,
            Self::HealthScore => Unit::Score,
        }
    }

    /// Names it in what is stored: these numbers never change, and a new metric gets the next one.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::CpuUsage => 1,
            Self::MemoryUsage => 2,
            Self::StorageUsage => 3,
            Self::NodeLoad1 => 4,
            Self::NodeLoad5 => 5,
            Self::NodeLoad15 => 6,
            Self::NetworkIn => 7,
            Self::NetworkOut => 8,
            Self::DiskRead => 9,
            Self::DiskWrite => 10,
            Self::GpuUtilization => 11,
            Self::GpuMemoryUtilization => 12,
            Self::Temperature => 13,
            Self::SloViolation => 14,
            Self::HealthScore => 15,
            Self::CpuUsagePeak => 16,
            Self::MemoryUsagePeak => 17,
        }
    }

    /// The metric with this [`Self::code`].
    #[must_use]
    pub fn by_code(code: i32) -> Option<Self> {
        Self::ALL.iter().copied().find(|metric| metric.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::Metric;
    use std::collections::BTreeSet;

    #[test]
    fn each_has_a_number_of_its_own() {
        let codes: BTreeSet<i32> = Metric::ALL.iter().map(|metric| metric.code()).collect();
        assert_eq!(codes.len(), Metric::COUNT);
        for metric in Metric::ALL {
            assert_eq!(Metric::by_code(metric.code()), Some(*metric));
            assert_eq!(Metric::parse(metric.as_str()), Some(*metric));
        }
        assert_eq!(Metric::by_code(0), None);
    }
}
