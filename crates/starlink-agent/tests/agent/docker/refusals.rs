//! What is refused, and what is told of it.

use super::bed::{Bed, container, inspect, reason, shell};
use crate::engine::{
    images::{FOREIGN, LYING, architectures},
    shared,
};
use domain::scheduling::{Mount, RestartPolicy, TaskSpec};
use starlink_agent::drivers::Driver;
use std::{fs, path::Path};

fn mount(source: &str, target: &str, read_only: bool) -> Mount {
    Mount { source: source.to_owned(), target: target.to_owned(), read_only }
}

#[tokio::test]
async fn an_image_that_cannot_be_had_is_told_in_the_engines_words() {
    let Some(engine) = shared() else { return };
    let failure = Bed::on(engine).refusal(container("127.0.0.1:1/nosuch:1", &[])).await;
    assert_eq!(failure.reason, "image_missing");
    assert!(failure.detail.contains("127.0.0.1:1") && failure.detail.contains("refused"), "{failure}");
    let failure = Bed::on(engine).refusal(container("../containers", &[])).await;
    assert_eq!(failure.reason, "image_missing");
}

#[tokio::test]
async fn only_folders_that_the_owner_allowed_are_mounted() {
    let Some(engine) = shared() else { return };
    let folders = tempfile::tempdir().unwrap();
    let (allowed, secret) = (folders.path().join("allowed"), folders.path().join("secret"));
    fs::create_dir_all(&allowed).unwrap();
    fs::create_dir_all(&secret).unwrap();
    fs::write(allowed.join("greeting"), "hello\n").unwrap();
    std::os::unix::fs::symlink(&secret, allowed.join("link")).unwrap();
    let bed = Bed::at(&engine.socket(), |options| options.allow_mounts = vec![allowed.clone()]);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let with = |mounts: Vec<Mount>, script: &str| TaskSpec { mounts, ..shell(script) };

    let both = vec![mount(&path(&allowed), "/data/in", false), mount(&path(&allowed), "/data/read", true)];
    let (exit, log) =
        bed.run(with(both, "cat /data/in/greeting; touch /data/in/x; touch /data/read/y || exit 8")).await;
    // Which stream the engine reads first is its own affair.
    assert!(exit.code == Some(8) && log.iter().any(|line| line == "stdout: hello"), "{exit:?} {log:?}");
    assert!(allowed.join("x").exists() && !allowed.join("y").exists());

    for source in [path(&secret), path(&allowed.join("link")), format!("{}/../secret", path(&allowed)), "/".to_owned()]
    {
        let failure = bed.refusal(with(vec![mount(&source, "/data", true)], "true")).await;
        assert_eq!(failure.reason, "not_allowed");
        assert!(failure.detail.contains(&source) && failure.detail.contains("--allow-mount"), "{failure}");
    }
    let nobody = Bed::on(engine).refusal(with(vec![mount(&path(&allowed), "/data", true)], "true")).await;
    assert_eq!(nobody.reason, "not_allowed");
}

#[tokio::test]
async fn a_volume_stays_and_what_has_no_name_goes() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let name = format!("cache-{}", bed.installation);
    let spec = |script: &str| TaskSpec { mounts: vec![mount(&name, "/data", false)], ..shell(script) };
    assert_eq!(bed.run(spec("echo kept > /data/file")).await.0.code, Some(0));
    assert_eq!(bed.run(spec("cat /data/file")).await.1, ["stdout: kept"]);
    engine.client().remove_volume(&name, None::<bollard::query_parameters::RemoveVolumeOptions>).await.unwrap();
}

#[tokio::test]
async fn an_image_for_another_architecture_is_refused_before_anything_is_made() {
    let Some(engine) = shared() else { return };
    let (native, foreign, _) = architectures();
    let bed = Bed::on(engine);
    for allow_emulation in [false, true] {
        let failure = bed.refusal(TaskSpec { allow_emulation, ..container(FOREIGN, &["true"]) }).await;
        // Another one cannot be pulled, and what the engine has says nothing about what there is.
        assert_eq!(failure.reason, "image_missing");
        assert!(failure.detail.contains(native) && failure.detail.contains(foreign), "{failure}");
    }
    assert_eq!(bed.driver.found(&bed.installation).await.unwrap(), []);
}

#[tokio::test]
async fn an_image_for_an_architecture_that_is_emulated_is_run_if_that_is_allowed() {
    let Some(engine) = shared() else { return };
    let (_, foreign, machine) = architectures();
    // The machine does not really emulate it, and need not: what is in the image is for this one.
    let root = tempfile::tempdir().unwrap();
    let handlers = root.path().join("proc/sys/fs/binfmt_misc");
    fs::create_dir_all(&handlers).unwrap();
    let [low, high] = machine.to_le_bytes();
    let magic = format!("7f454c460201010000000000000000000200{low:02x}{high:02x}");
    let handler = format!("enabled\ninterpreter /usr/bin/qemu-{foreign}\nflags: F\noffset 0\nmagic {magic}\n");
    fs::write(handlers.join("qemu"), handler).unwrap();
    let bed = Bed::at(&engine.socket(), |options| options.root = root.path().to_owned());
    let failure = bed.refusal(container(FOREIGN, &["true"])).await;
    assert_eq!(failure.reason, "image_missing");
    let (exit, log) = bed.run(TaskSpec { allow_emulation: true, ..container(FOREIGN, &["echo", "ran"]) }).await;
    assert_eq!((exit.code, log), (Some(0), vec!["stdout: ran".to_owned()]));
}

#[tokio::test]
async fn fc_07_a_program_for_another_architecture_in_an_image_that_lies_is_told_as_that() {
    let Some(engine) = shared() else { return };
    let (exit, log) = Bed::on(engine).run(container(LYING, &[])).await;
    assert_eq!(reason(&exit), Some("exec_format"), "{exit:?} {log:?}");
    assert!(exit.failure.unwrap().detail.to_lowercase().contains("exec format error"));
}

#[tokio::test]
async fn a_program_that_is_not_there_could_not_be_started() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let (exit, _) = bed.run(container(crate::engine::images::BUSYBOX, &["/nosuch"])).await;
    assert_eq!(reason(&exit), Some("start_failed"), "{exit:?}");
    let (exit, _) = bed.run(shell("/nosuch; exit 127")).await;
    assert_eq!((exit.code, reason(&exit)), (Some(127), None), "the program itself was begun");
}

#[tokio::test]
async fn gpus_that_are_not_there_are_refused() {
    let Some(engine) = shared() else { return };
    let root = tempfile::tempdir().unwrap();
    let bed = Bed::at(&engine.socket(), |options| options.root = root.path().to_owned());
    let mut spec = shell("true");
    spec.demand.gpus = 1;
    let failure = bed.refusal(spec.clone()).await;
    assert_eq!((failure.reason, failure.detail.contains("0 of the 0")), ("start_failed", true), "{failure}");

    // With two cards to be seen, each container gets one of its own. This engine has no driver to start them with.
    for card in ["0000:01:00.0", "0000:02:00.0"] {
        let folder = root.path().join("sys/bus/pci/devices").join(card);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in [("class", "0x030000"), ("vendor", "0x10de"), ("device", "0x2204")] {
            fs::write(folder.join(file), text).unwrap();
        }
    }
    let mut devices = Vec::new();
    for task in 1..=3 {
        let work = bed.work(task, spec.clone());
        let failure = bed.driver.start(&work, &|_| {}).await.unwrap_err();
        assert_eq!(failure.reason, "start_failed");
        if task < 3 {
            assert!(failure.detail.contains("gpu"), "{failure}");
            let requests = inspect(&engine.client(), &work).await.host_config.unwrap().device_requests.unwrap();
            devices.extend(requests[0].device_ids.clone().unwrap());
        } else {
            assert!(failure.detail.contains("0 of the 2"), "{failure}");
        }
    }
    assert_eq!(devices, ["0", "1"]);
    for task in 1..=3 {
        bed.driver.remove(&bed.work(task, spec.clone())).await.unwrap();
    }
}

#[tokio::test]
async fn what_restarts_for_ever_and_never_begins_does_not_keep_its_reason_from_being_told() {
    let Some(engine) = shared() else { return };
    let bed = Bed::on(engine);
    let spec = TaskSpec { restart: RestartPolicy::OnFailure, ..container(LYING, &[]) };
    let work = bed.start(1, spec).await;
    let waiting = bed.waiting(&work);
    let client = engine.client();
    super::bed::until("a restart", async || inspect(&client, &work).await.restart_count >= Some(1)).await;
    bed.driver.stop(&work, std::time::Duration::ZERO).await.unwrap();
    let exit = super::bed::ended(waiting).await;
    assert_eq!(reason(&exit), Some("exec_format"), "{exit:?}");
    bed.driver.remove(&work).await.unwrap();
}
