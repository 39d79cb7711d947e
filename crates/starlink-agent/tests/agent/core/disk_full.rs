//! The disk of the state directory is full.

use super::{
    driver::exit,
    meter::{QUICK, until_stored, until_waiting, waiting},
    rig::{Rig, run, work},
};
use domain::fleet::protocol::Ending;
use starlink_agent::meter::MeterPeriods;
use std::{io::Write, path::PathBuf, process::Command, time::Duration};

/// A small disk in memory, mounted where the state directory will be.
struct Disk(PathBuf);

impl Disk {
    /// `None` where nothing may be mounted.
    #[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=512k,mode=0700", "starlink-test"];
        let output = Command::new("mount").args(options).arg(&path).output();
        if output.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no disk could be mounted: {output:?}");
        eprintln!("NOT RUN: no disk could be mounted: {output:?}");
        None
    }

    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// Orders work until no line fits into the last page of the journal either. Returns what was refused because of that.
async fn until_full(rig: &Rig, first: i64) -> i64 {
    for id in first..60 {
        rig.server.order(id, run(id, "quick"));
        if rig.server.ended(id).await.reason.as_deref() == Some("disk_full") {
            return id;
        }
    }
    panic!("the disk does not get full")
}

#[tokio::test]
async fn nothing_is_begun_that_cannot_be_written_down() {
    let rig = Rig::new().await;
    let Some(disk) = Disk::mount(rig.path.clone()) else { return };
    rig.join_by_hand(&rig.path);
    let agent = rig.agent().await;
    rig.server.connected().await;
    let ballast = disk.fill();
    let refused = until_full(&rig, 1).await;
    let end = rig.server.op(refused).results[0].clone();
    assert_eq!(end.ending, Ending::Failed);
    assert!(!rig.machine.table().runs.contains_key(&work(refused)));
    // With room again, it stays as it was told, and others are begun.
    std::fs::remove_file(ballast).unwrap();
    rig.server.change(|state| {
        let op = state.operations.get_mut(&refused).unwrap();
        (op.closed, op.again_and_again) = (false, true);
    });
    assert_eq!(rig.server.ended(refused).await, end);
    rig.server.order(99, run(99, "quick"));
    assert_eq!(rig.server.ended(99).await.ending, Ending::Completed);
    agent.stop().await;
    assert!(!rig.machine.table().runs.contains_key(&work(refused)));
    assert!(rig.journal().contains("disk_full"), "it is written down as soon as there is room");
}

#[tokio::test]
async fn an_end_that_cannot_be_written_down_is_told_all_the_same() {
    let rig = Rig::new().await;
    let Some(disk) = Disk::mount(rig.path.clone()) else { return };
    rig.join_by_hand(&rig.path);
    rig.server.order(1, run(11, "long"));
    let agent = rig.agent().await;
    rig.server.running(1).await;
    let ballast = disk.fill();
    until_full(&rig, 2).await;
    rig.machine.exit(&work(11), exit(3));
    let end = rig.server.ended(1).await;
    assert_eq!((end.ending, end.exit_code), (Ending::Failed, Some(3)));
    rig.machine.until("nothing is left of it", |table| !table.works.contains_key(&work(11))).await;
    std::fs::remove_file(ballast).unwrap();
    agent.stop().await;
    // What was not written is not known to the next run, which must not run anything again because of that.
    let agent = rig.agent().await;
    rig.server.until("a second session", |state| state.sessions.len() == 2).await;
    rig.server.order(100, run(100, "quick"));
    assert_eq!(rig.server.ended(100).await.ending, Ending::Completed);
    agent.stop().await;
    assert!(rig.machine.table().runs.values().all(|runs| *runs == 1));
    assert_eq!(rig.server.op(1).results, [end]);
}

#[tokio::test]
async fn what_is_measured_is_kept_in_memory_and_written_once_there_is_room() {
    let mut rig = Rig::new().await;
    let Some(disk) = Disk::mount(rig.path.clone()) else { return };
    rig.join_by_hand(&rig.path);
    let (reading, sample) = (Duration::from_millis(1), Duration::from_millis(2));
    rig.periods.meter = MeterPeriods { reading, sample, ..QUICK };
    let agent = rig.agent().await;
    rig.server.connected().await;
    rig.server.down().await;
    until_waiting(&rig, 1).await;
    let ballast = disk.fill();
    // What is left of the last page has room for some lines.
    let before = rig.clock_now();
    while rig.clock_now() < before + 200 * sample {
        tokio::task::yield_now().await;
    }
    let (written, stored) = (waiting(&rig), rig.server.state().samples.stored.len());
    rig.server.up().await;
    until_stored(&rig, stored + written + 50).await;
    std::fs::remove_file(ballast).unwrap();
    rig.server.down().await;
    until_waiting(&rig, 60).await;
    let written = waiting(&rig);
    drop(agent);
    let stored = rig.server.state().samples.stored.len();
    rig.server.up().await;
    let agent = rig.agent().await;
    until_stored(&rig, stored + written).await;
    agent.stop().await;
}
