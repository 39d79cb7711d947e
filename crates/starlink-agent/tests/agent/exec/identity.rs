use super::rig::{Machine, env, out, said};
use domain::fleet::protocol::LogStream;
use std::{fs, os::unix::fs::MetadataExt, os::unix::fs::PermissionsExt};

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[tokio::test]
async fn work_is_not_run_as_root() {
    if !is_root() {
        return;
    }
    let mut machine = Machine::new();
    let work = machine.shell("id -u; id -g; id -G; umask");
    machine.run(&work).await;
    assert_eq!(out(&work).await, ["65534", "65534", "65534", "0022"]);
    // Without a shell, which would put some of it right.
    let work = machine.work(&["cat", "/proc/self/status"]);
    machine.run(&work).await;
    let said = out(&work).await;
    let bits = |name: &str| {
        let line =
            said.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {said:?}"));
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!((bits("SigBlk:"), bits("CapEff:"), bits("CapPrm:"), bits("NoNewPrivs:")), (0, 0, 0, 1));
    // Beyond 31 are those that the C library keeps for itself.
    assert_eq!(bits("SigIgn:") & 0x7fff_ffff, 0);
}

#[tokio::test]
async fn work_runs_as_the_user_that_is_asked_for_with_its_groups() {
    if !is_root() {
        return;
    }
    let mut machine = Machine::with(|options| options.exec_user = Some("daemon".to_owned()));
    let work = machine.shell("id -un; echo $USER $LOGNAME; stat -c %U .");
    machine.run(&work).await;
    assert_eq!(out(&work).await, ["daemon", "daemon daemon", "daemon"]);

    let mut machine = Machine::with(|options| options.allow_root = true);
    let work = machine.shell("id -u");
    machine.run(&work).await;
    assert_eq!(out(&work).await, ["0"]);

    for (user, reason) in [("root", "not_allowed"), ("no-such-user-here", "start_failed")] {
        let mut machine = Machine::with(|options| options.exec_user = Some(user.to_owned()));
        assert_eq!(machine.driver.check().unwrap_err().reason, reason);
        let work = machine.work(&["true"]);
        assert_eq!(machine.start(&work).await.unwrap_err().reason, reason);
    }
}

#[tokio::test]
async fn what_the_agent_was_started_with_is_not_handed_on() {
    if !is_root() {
        return;
    }
    // As `nohup` does, and shells with what they run in the background.
    let ignored = "trap '' HUP INT QUIT TERM USR1 CHLD";
    let script = format!("{ignored}; exec 7</etc/passwd; exec setpriv --groups 4,24 -- \"$0\" shim \"$1\"");
    let mut machine = Machine::with(|options| {
        let program = std::mem::take(&mut options.shim.0);
        options.shim = ("/bin/sh".into(), vec!["-c".into(), script.into(), program.into()]);
    });
    let work = machine.shell("id -G; ls /proc/self/fd | wc -l; grep SigIgn: /proc/self/status");
    machine.run(&work).await;
    let said = out(&work).await;
    assert_eq!(said[..2], ["65534", "4"]);
    let ignored = u64::from_str_radix(said[2].trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(ignored & 0x7fff_ffff, 0, "{said:?}");
}

#[tokio::test]
async fn a_program_cannot_become_root() {
    if !is_root() {
        return;
    }
    let mut machine = Machine::new();
    // A copy of `id` that is root's, and runs as root for everybody.
    let id = fs::canonicalize("/usr/bin/id").unwrap();
    let (_folder, program) = super::rig::program(&fs::read(id).unwrap(), 0o4755);
    let work = machine.work(&[&program, "-u"]);
    machine.run(&work).await;
    assert_eq!(out(&work).await, ["65534"]);
}

#[tokio::test]
async fn the_environment_is_the_tasks_own() {
    let mut machine = Machine::new();
    let work = machine
        .work_with(&["env"], |spec| spec.env = env(&[("GREETING", "hello = world\nagain"), ("HOME", "/elsewhere")]));
    machine.run(&work).await;
    let mut told = out(&work).await;
    told.sort();
    let user = if is_root() { "nobody".to_owned() } else { std::env::var("USER").unwrap() };
    let mut expected = vec![
        "GREETING=hello = world".to_owned(),
        "HOME=/elsewhere".to_owned(),
        format!("LOGNAME={user}"),
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("USER={user}"),
        "again".to_owned(),
    ];
    expected.sort();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_program_has_a_folder_of_its_own_and_nothing_open() {
    let mut machine = Machine::new();
    let script =
        "pwd; echo $HOME; echo mine > file && cat file; ls -A; ls /proc/self/fd | wc -l; readlink /proc/self/fd/0";
    let work = machine.shell(script);
    machine.run(&work).await;
    let directory = work.folder.join("run").to_str().unwrap().to_owned();
    // Standard input, output, error, and the folder that `ls` itself has open.
    assert_eq!(out(&work).await, [&directory, &directory, "mine", "file", "4", "/dev/null"]);
    assert_eq!(fs::metadata(work.folder.join("shim.json")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_program_can_neither_read_nor_change_what_is_said_about_it() {
    if !is_root() {
        return;
    }
    let mut machine = Machine::new();
    let script = "cd ..; for file in shim.json run.json life stop.json exit.json log/x new; do cat $file; echo x > $file; done; \
                  rm -r shim.json; mv log gone; ls log";
    let work = machine.work_with(&["sh", "-c", script], |spec| spec.env = env(&[("SECRET", "hunter-55")]));
    assert_eq!(machine.run(&work).await.failure, None);
    assert!(out(&work).await.is_empty());
    let errors = said(&work, LogStream::Stderr).await;
    assert_eq!(errors.len(), 17, "{errors:#?}");
    assert!(!errors.iter().any(|line| line.contains("hunter")));
}

#[tokio::test]
async fn standard_input_is_empty_and_a_closed_pipe_ends_a_program() {
    let mut machine = Machine::new();
    let work = machine.shell("cat; yes | head -n 1; echo end");
    assert_eq!(machine.run(&work).await.code, Some(0));
    assert_eq!(out(&work).await, ["y", "end"]);
    assert!(said(&work, LogStream::Stderr).await.is_empty());
}
