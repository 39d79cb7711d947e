//! How hot the machine is.

use std::{
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

/// What sensors tell that are there: what is not connected is often said to be at one end of a byte.
const CREDIBLE: RangeInclusive<f64> = -40.0..=124.0;
/// To ask a disk keeps it from resting, so that disks are not asked by this driver.
const DISKS: &str = "drivetemp";

/// The hottest of the sensors, in degrees Celsius: those of the monitoring chips, or else the kernel's thermal zones.
pub(super) fn hottest(root: &Path) -> Option<f64> {
    let chips = folders(&root.join("sys/class/hwmon"), "hwmon").flat_map(|chip| sensors(&chip));
    let zones = || folders(&root.join("sys/class/thermal"), "thermal_zone").map(|zone| zone.join("temp"));
    most(chips).or_else(|| most(zones()))
}

/// Whether a device sleeps, so that a question would wake it.
pub(super) fn sleeps(device: &Path) -> bool {
    fs::read_to_string(device.join("power/runtime_status")).is_ok_and(|status| status.trim() == "suspended")
}

/// The entries of a folder whose names begin like this.
pub(super) fn folders(folder: &Path, prefix: &'static str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path())
}

/// The files of a chip's sensors.
fn sensors(chip: &Path) -> Vec<PathBuf> {
    let is_of_disk = fs::read_to_string(chip.join("name")).is_ok_and(|name| name.trim() == DISKS);
    if is_of_disk || sleeps(&chip.join("device")) {
        return Vec::new();
    }
    folders(chip, "temp").filter(|path| path.to_string_lossy().ends_with("_input")).collect()
}

fn most(sensors: impl Iterator<Item = PathBuf>) -> Option<f64> {
    sensors.filter_map(|sensor| degrees(&fs::read_to_string(sensor).ok()?)).reduce(f64::max)
}

/// The kernel tells thousandths.
fn degrees(text: &str) -> Option<f64> {
    let thousandths: i32 = text.trim().parse().ok()?;
    Some(f64::from(thousandths) / 1000.0).filter(|degrees| CREDIBLE.contains(degrees))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::tree::Tree;

    #[test]
    fn degrees_are_read_if_they_can_be() {
        for (text, expected) in [
            ("45500\n", Some(45.5)),
            ("-5500", Some(-5.5)),
            ("0\n", Some(0.0)),
            ("127000\n", None),
            ("-128000\n", None),
            ("", None),
            ("hot", None),
        ] {
            assert_eq!(degrees(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_hottest_sensor_that_is_there_counts() {
        let tree = Tree::new();
        assert_eq!(hottest(tree.path()), None);
        tree.write("sys/class/thermal/thermal_zone0/temp", "30000\n");
        tree.write("sys/class/thermal/thermal_zone1/temp", "41000\n");
        tree.write("sys/class/thermal/cooling_device0/temp", "99000\n");
        assert_eq!(hottest(tree.path()), Some(41.0));
        tree.write("sys/class/hwmon/hwmon0/name", "coretemp\n");
        tree.write("sys/class/hwmon/hwmon0/temp1_input", "36000\n");
        tree.write("sys/class/hwmon/hwmon0/temp2_input", "38250\n");
        tree.write("sys/class/hwmon/hwmon0/temp2_crit", "100000\n");
        tree.write("sys/class/hwmon/hwmon1/temp1_input", "127000\n");
        assert_eq!(hottest(tree.path()), Some(38.25));
        // Neither a disk nor what sleeps is asked.
        tree.write("sys/class/hwmon/hwmon2/name", "drivetemp\n");
        tree.write("sys/class/hwmon/hwmon2/temp1_input", "50000\n");
        tree.write("sys/class/hwmon/hwmon3/device/power/runtime_status", "suspended\n");
        tree.write("sys/class/hwmon/hwmon3/temp1_input", "60000\n");
        assert_eq!(hottest(tree.path()), Some(38.25));
    }
}
