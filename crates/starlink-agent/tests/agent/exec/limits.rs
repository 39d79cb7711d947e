use super::rig::{Machine, groups, heard, out, said};
use domain::fleet::protocol::LogStream;
use std::{fs, time::Duration};

/// Uses up any memory that it gets.
const GLUTTON: &[&str] = &["tail", "/dev/zero"];

#[tokio::test]
async fn what_takes_more_memory_than_it_asked_for_is_told_so() {
    let mut machine = Machine::new();
    if !machine.driver.limits().memory {
        return;
    }
    let work = machine.work_with(GLUTTON, |spec| spec.demand.memory_mib = 32);
    let exit = machine.run(&work).await;
    assert_eq!((exit.signal, exit.failure.unwrap().reason), (Some(9), "out_of_memory"));

    // Also where only a child was ended for it.
    let work = machine.work_with(&["sh", "-c", "tail /dev/zero; exit 5"], |spec| spec.demand.memory_mib = 32);
    let exit = machine.run(&work).await;
    assert_eq!((exit.code, exit.failure.unwrap().reason), (Some(5), "out_of_memory"));
}

#[tokio::test]
async fn memory_has_not_run_out_only_because_a_program_was_killed() {
    let mut machine = Machine::new();
    let work = machine.work_with(&["sh", "-c", "kill -KILL $$; sleep 1000"], |spec| spec.demand.memory_mib = 32);
    let exit = machine.run(&work).await;
    assert_eq!((exit.signal, exit.failure), (Some(9), None));
    if !machine.driver.limits().memory {
        return;
    }
    // It survived the end of its child.
    let work = machine.work_with(&["sh", "-c", "tail /dev/zero; exit 0"], |spec| spec.demand.memory_mib = 32);
    let exit = machine.run(&work).await;
    assert_eq!((exit.code, exit.failure), (Some(0), None));
}

#[tokio::test]
async fn a_demand_becomes_a_limit() {
    let mut machine = Machine::new();
    let work = machine.work_with(&["sh", "-c", "cat /proc/self/cgroup; echo ready; exec sleep 1000"], |spec| {
        spec.demand.cpu_millis = 250;
        spec.demand.memory_mib = 48;
    });
    machine.start(&work).await.unwrap();
    heard(&work, "ready").await;
    let limits = machine.driver.limits();
    let groups = groups(&work.folder);
    let set = |files: [&str; 2]| {
        let paths = groups.iter().flat_map(|group| files.map(|file| group.join(file)));
        paths.filter_map(|path| fs::read_to_string(path).ok()).map(|text| text.trim().to_owned()).next()
    };
    if limits.memory {
        assert_eq!(set(["memory.max", "memory.limit_in_bytes"]).unwrap(), "50331648");
    }
    if limits.cpu {
        assert!(["25000", "25000 100000"].contains(&set(["cpu.max", "cpu.cfs_quota_us"]).unwrap().as_str()));
    }
    if limits.processes {
        assert_eq!(set(["pids.max", "pids.max"]).unwrap(), "4096");
    }
    machine.stop(&work, Duration::ZERO).await;
    let name = work.id.to_string();
    let within = out(&work).await.iter().filter(|line| line.ends_with(&name)).count();
    assert_eq!((within > 0, within), (limits.tree, groups.len()));
}

#[tokio::test]
async fn a_demand_that_cannot_be_enforced_is_told_in_the_log() {
    let mut machine = Machine::without_groups();
    let limits = machine.driver.limits();
    assert!(!limits.cpu && !limits.memory && !limits.processes && !limits.tree);
    assert_eq!(limits.missing, ["control groups are switched off"]);
    let work = machine.work_with(&["echo", "runs"], |spec| spec.demand.memory_mib = 32);
    assert_eq!(machine.run(&work).await.code, Some(0));
    assert_eq!(out(&work).await, ["runs"]);
    assert_eq!(said(&work, LogStream::Agent).await, ["memory is not limited: it has no control group here"]);
    let work = machine.work(&["echo", "runs"]);
    machine.run(&work).await;
    assert!(said(&work, LogStream::Agent).await.is_empty(), "nobody had asked for a limit");
}
