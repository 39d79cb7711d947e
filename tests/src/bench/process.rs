//! What the operating system says about the server's process.

use crate::{Outcome, site::Site, table::Row};
use std::time::Duration;

/// Linux tells CPU time in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time that a process has used, in user and kernel mode.
pub(crate) fn cpu(pid: u32) -> Outcome<Duration> {
    ticks(&format!("/proc/{pid}/stat"), 11)
}

/// The same of this process's children that have ended.
pub(crate) fn cpu_of_children() -> Outcome<Duration> {
    ticks("/proc/self/stat", 13)
}

/// The sum of two numbers of ticks, after so many fields behind the name of the program.
fn ticks(file: &str, skipped: usize) -> Outcome<Duration> {
    let stat = std::fs::read_to_string(file)?;
    // The name may contain anything; what follows its closing bracket does not.
    let (_, numbers) = stat.rsplit_once(')').ok_or("a strange /proc/PID/stat")?;
    let mut ticks = numbers.split_whitespace().skip(skipped).map(str::parse::<u32>);
    let (user, system) = ticks.next().zip(ticks.next()).ok_or("a short /proc/PID/stat")?;
    Ok(TICK * (user? + system?))
}

/// A line about the memory of a process.
pub(crate) fn memory_row(site: &Site, when: &str, pid: u32) -> Outcome<Row> {
    let resident = mib(&format!("/proc/{pid}/status"), "VmRSS:")?;
    let own = mib(&format!("/proc/{pid}/smaps_rollup"), "Anonymous:")?;
    let proportional = mib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
    Ok(Row {
        measurement: format!("memory {when}, {} (PSS; without files)", site.name),
        result: format!("{resident:.1} ({proportional:.1}; {own:.1}) MiB"),
        wall: String::new(),
        cpu: String::new(),
        aim: if when.starts_with("at rest") { "< 25 MiB" } else { "" },
    })
}

/// The resident memory of a process, in MiB.
pub(crate) fn resident(pid: u32) -> Outcome<f64> {
    mib(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// The most that it ever was, in MiB.
pub(crate) fn most_resident(pid: u32) -> Outcome<f64> {
    mib(&format!("/proc/{pid}/status"), "VmHWM:")
}

fn mib(file: &str, field: &str) -> Outcome<f64> {
    let text = std::fs::read_to_string(file)?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
    let kib: u32 = value.trim().trim_end_matches(" kB").parse()?;
    Ok(f64::from(kib) / 1024.0)
}
