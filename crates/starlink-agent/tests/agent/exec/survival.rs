use super::rig::{Machine, PATIENCE, heard, in_time, is_running, out, shim_of, until};
use starlink_agent::drivers::{Driver, exec::ExecDriver};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

#[tokio::test]
async fn an_agent_that_is_started_again_finds_its_work_and_its_end() {
    let mut machine = Machine::new();
    let work = machine.shell("echo ready; until [ -e go ]; do sleep 0.01; done; echo done; exit 6");
    machine.start(&work).await.unwrap();
    heard(&work, "ready").await;
    machine.restart();
    machine.start(&work).await.unwrap();
    let waiting = machine.driver.wait(&work);
    fs::write(work.folder.join("run/go"), "").unwrap();
    assert_eq!(in_time("wait", waiting).await.code, Some(6));
    assert_eq!(out(&work).await, ["ready", "done"], "it ran once");
}

#[tokio::test]
async fn an_end_that_no_agent_saw_is_told_to_the_next_one() {
    let mut machine = Machine::new();
    let work = machine.work_with(&["sh", "-c", "echo ready; exec sleep 1000"], |spec| {
        spec.timeout_seconds = Some(1);
    });
    // An agent whose threads are all gone: only the shim is left to end it.
    let (options, copy) = (machine.options.clone(), work.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(ExecDriver::new(options).start(&copy, &|_| {})).unwrap();
        runtime.shutdown_background();
    })
    .join()
    .unwrap();
    until("the end", || work.folder.join("exit.json").exists()).await;
    machine.restart();
    let exit = machine.wait(&work).await;
    assert_eq!((exit.signal, exit.failure.unwrap().reason), (Some(15), "timed_out"));
}

#[tokio::test]
async fn whoever_starts_it_it_runs_once() {
    let mut machine = Machine::new();
    let work = machine.shell("echo x >> runs; echo ran; sleep 0.2");
    let drivers: Vec<_> = (0..6).map(|_| Arc::new(ExecDriver::new(machine.options.clone()))).collect();
    let starts: Vec<_> = drivers
        .iter()
        .map(|driver| {
            let (driver, work) = (Arc::clone(driver), work.clone());
            tokio::spawn(async move { driver.start(&work, &|_| {}).await })
        })
        .collect();
    for start in starts {
        in_time("start", start).await.unwrap().unwrap();
    }
    assert_eq!(machine.wait(&work).await.code, Some(0));
    machine.start(&work).await.unwrap();
    assert_eq!(fs::read_to_string(work.folder.join("run/runs")).unwrap(), "x\n");
}

#[tokio::test]
async fn a_number_that_somebody_else_has_by_now_is_not_taken_for_the_shim() {
    let mut machine = Machine::new();
    let work = machine.shell("echo ready; sleep 1000");
    machine.start(&work).await.unwrap();
    heard(&work, "ready").await;
    super::rig::kill(shim_of(&work.folder).unwrap(), "KILL");
    // A stranger, in a session of its own, with the number of the shim.
    let mut stranger = Command::new("setsid").args(["sleep", "1000"]).spawn().unwrap();
    let path = work.folder.join("run.json");
    let mut claim: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    claim["shim"]["pid"] = stranger.id().into();
    fs::write(&path, claim.to_string()).unwrap();
    let exit = machine.wait(&work).await;
    let alive = is_running(stranger.id().try_into().unwrap());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(exit.lost && alive, "{exit:?}");
}

#[tokio::test]
async fn a_machine_that_was_started_again_has_lost_its_work() {
    let mut machine = Machine::new();
    let work = machine.shell("echo ready; sleep 1000");
    machine.start(&work).await.unwrap();
    heard(&work, "ready").await;
    super::rig::kill(shim_of(&work.folder).unwrap(), "KILL");
    let path = work.folder.join("run.json");
    let mut claim: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    claim["shim"]["boot"] = "another".into();
    fs::write(&path, claim.to_string()).unwrap();
    let exit = machine.wait(&work).await;
    assert!(exit.lost && exit.failure.unwrap().detail.contains("the machine was started again"));
}

#[tokio::test]
async fn what_was_never_begun_is_lost_or_ended_as_it_was_asked_for() {
    let mut machine = Machine::new();
    let work = machine.work(&["true"]);
    let exit = machine.wait(&work).await;
    assert!(exit.lost && exit.failure.is_some());
    machine.stop(&work, Duration::ZERO).await;
    machine.remove(&work).await;

    // The agent was killed when it had written down what is to be run, and no more.
    let [waited, stopped] = [1, 2].map(|_| {
        let work = machine.shell("echo ran");
        let donor = fs::read_dir(&machine.options.root).unwrap().count();
        assert!(donor > 0);
        work
    });
    let began = machine.shell("true");
    machine.run(&began).await;
    for work in [&waited, &stopped] {
        fs::copy(began.folder.join("shim.json"), work.folder.join("shim.json")).unwrap();
    }
    let exit = machine.wait(&waited).await;
    assert_eq!((exit.lost, exit.failure.unwrap().reason), (false, "start_failed"));
    assert_eq!(machine.start(&waited).await.unwrap_err().reason, "start_failed", "it is not begun any more");
    machine.stop(&stopped, Duration::ZERO).await;
    let exit = machine.wait(&stopped).await;
    assert_eq!((exit.lost, exit.code, exit.failure), (false, None, None));
}

#[tokio::test]
async fn a_shim_that_cannot_run_says_so() {
    let mut machine = Machine::with(|options| options.shim = ("/no/such/agent".into(), Vec::new()));
    let work = machine.work(&["true"]);
    let failure = machine.start(&work).await.unwrap_err();
    assert_eq!(failure.reason, "start_failed");

    let mut machine = Machine::with(|options| {
        options.shim = ("/bin/sh".into(), vec!["-c".into(), "echo no shim here >&2; exit 1".into()]);
    });
    let work = machine.work(&["true"]);
    let failure = machine.start(&work).await.unwrap_err();
    assert!(failure.detail.contains("no shim here"), "{failure}");
}

#[tokio::test]
async fn work_is_found_until_it_is_removed_and_its_log_after_that() {
    let mut machine = Machine::new();
    let (running, ended, fresh) =
        (machine.shell("echo ready; sleep 1000"), machine.shell("echo out"), machine.work(&["true"]));
    machine.run(&ended).await;
    machine.start(&running).await.unwrap();
    heard(&running, "ready").await;
    fs::create_dir(machine.options.root.join("something-else")).unwrap();
    let installation = &*running.id.installation;
    assert_eq!(machine.driver.found(installation).await.unwrap(), [running.id.clone(), ended.id.clone()]);
    assert!(machine.driver.found("0123").await.unwrap().is_empty());

    assert_eq!(machine.driver.remove(&running).await.unwrap_err().reason, "illegal_transition");
    assert!(shim_of(&running.folder).is_some(), "it runs on");
    machine.remove(&ended).await;
    machine.remove(&ended).await;
    let left: Vec<_> = fs::read_dir(&ended.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["log"]);
    assert_eq!(out(&ended).await, ["out"]);
    assert_eq!(machine.driver.found(installation).await.unwrap(), std::slice::from_ref(&running.id));
    machine.stop(&running, Duration::ZERO).await;
    machine.remove(&running).await;
    machine.remove(&fresh).await;
    assert_eq!(machine.driver.found(installation).await.unwrap(), []);
    assert!(machine.driver.found("0123").await.unwrap().is_empty());
}

/// A small disk in memory.
struct Disk(TempDir);

impl Disk {
    fn mount(path: &Path, kib: u32) -> Option<Self> {
        let folder = tempfile::tempdir_in(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=0755"), "starlink-test"]).arg(folder.path());
        mount.output().unwrap().status.success().then_some(Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_delays_the_outcome_and_does_not_change_it() {
    let outside = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(outside.path(), 1024) else { return };
    let root: PathBuf = disk.0.path().to_owned();
    let mut machine = Machine::with(|options| options.root = root);
    let script = "dd if=/dev/zero of=ballast bs=4k 2>/dev/null; echo full; \
                  i=0; while [ $i -lt 2000 ]; do echo a line that is lost; i=$((i+1)); done; exit 5";
    let work = machine.shell(script);
    machine.start(&work).await.unwrap();
    until("the end of the program", || {
        let shim = shim_of(&work.folder);
        let children = |pid: i32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        work.folder.join("run/ballast").exists() && shim.is_some_and(|pid| children(pid).trim().is_empty())
    })
    .await;
    assert!(tokio::time::timeout(Duration::from_millis(100), machine.driver.wait(&work)).await.is_err());
    fs::remove_file(work.folder.join("run/ballast")).unwrap();
    let exit = tokio::time::timeout(PATIENCE, machine.driver.wait(&work)).await.unwrap();
    assert_eq!((exit.code, exit.failure, exit.lost), (Some(5), None, false));
    machine.remove(&work).await;
}
