//! What the agent finds out about machines: made-up ones, played engines, and this machine.

use crate::engine::{
    fake::{Fake, Response},
    shared,
};
use domain::fleet::{Architecture, Driver, protocol::InventoryReport};
use serde_json::{Value, json};
use starlink_agent::inventory::{Kernel, Options, take};
use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

/// A machine that is made up: four processors, not quite 8 GiB, Debian.
struct Machine {
    root: tempfile::TempDir,
    options: Options,
}

impl Machine {
    fn new(kernel: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let options = Options {
            root: root.path().to_owned(),
            kernel: Kernel { machine: kernel.to_owned(), release: "6.1.0-18".to_owned() },
            engine: None,
            state_dir: root.path().join("state"),
            exec: false,
        };
        let machine = Self { root, options };
        machine.write("proc/meminfo", "MemTotal:        8047123 kB\nMemFree:         1047123 kB\n");
        machine.write("sys/devices/system/cpu/online", "0-3\n");
        machine.write("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n");
        machine.program("bin/sh", 2, 62);
        machine
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A program of this ELF class and machine.
    fn program(&self, path: &str, class: u8, machine: u16) {
        let mut header = [0; 64];
        header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
        header[18..20].copy_from_slice(&machine.to_le_bytes());
        self.write(path, header);
    }

    async fn take(&self) -> InventoryReport {
        take(&self.options).await.unwrap()
    }

    async fn take_with(&mut self, engine: &Fake) -> InventoryReport {
        self.options.engine = Some(engine.socket());
        self.take().await
    }
}

/// An engine whose `/info` and `/version` say this.
fn engine(info: &Value, version: &Value) -> Fake {
    let (info, version) = (info.clone(), version.clone());
    Fake::start(move |request| match request.line.split(' ').nth(1).unwrap_or_default() {
        path if path.ends_with("/_ping") => {
            Response { pieces: vec![b"OK".to_vec()], ..Response::json(200, &Value::Null) }
        }
        path if path.ends_with("/info") => Response::json(200, &info),
        path if path.ends_with("/version") => Response::json(200, &version),
        _ => Response::missing(),
    })
}

#[tokio::test]
async fn a_machine_without_an_engine_is_what_its_kernel_says() {
    let mut machine = Machine::new("x86_64");
    machine.options.exec = true;
    let report = machine.take().await;
    assert_eq!((report.architecture.as_str(), report.drivers.as_slice()), ("x86_64", &[Driver::Exec][..]));
    assert_eq!((report.capacity.cpu_millis, report.capacity.memory_mib, report.capacity.gpus), (4000, 7858, 0));
    assert!(report.capacity.storage_mib > 0);
    assert_eq!((report.gpu_model, report.emulated_architectures), (None, vec![]));
    assert_eq!(report.os.as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
    assert_eq!(report.kernel.as_deref(), Some("6.1.0-18"));
    assert_eq!(report.agent_version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn a_32_bit_system_on_a_64_bit_kernel_is_a_32_bit_machine() {
    let machine = Machine::new("aarch64");
    machine.program("bin/sh", 1, 40);
    assert_eq!(machine.take().await.architecture, "armv7l");
    // What really runs says more than what lies about.
    machine.program("bin/busybox", 2, 183);
    fs::create_dir_all(machine.root.path().join("proc/1")).unwrap();
    symlink(machine.root.path().join("bin/busybox"), machine.root.path().join("proc/1/exe")).unwrap();
    assert_eq!(machine.take().await.architecture, "aarch64");
}

#[tokio::test]
async fn fc_01_a_32_bit_engine_is_never_a_64_bit_server() {
    let mut machine = Machine::new("aarch64");
    for (info, version) in [("armv7l", "arm"), ("aarch64", "arm"), ("armv7l", "arm64")] {
        let engine = engine(&json!({ "Architecture": info }), &json!({ "Arch": version, "ApiVersion": "1.43" }));
        let report = machine.take_with(&engine).await;
        assert_eq!(report.architecture, "armv7l");
        assert!(Architecture::parse(&report.architecture).is_err());
    }
}

#[tokio::test]
async fn fc_01_the_engine_is_believed_before_the_kernel() {
    let mut machine = Machine::new("x86_64");
    let engine = engine(
        &json!({ "Architecture": "aarch64", "OSType": "linux" }),
        &json!({ "Arch": "arm64", "ApiVersion": "1.43", "Os": "linux" }),
    );
    let report = machine.take_with(&engine).await;
    assert_eq!(Architecture::parse(&report.architecture), Ok(Architecture::Arm64));
    assert_eq!(report.drivers, [Driver::Docker]);
}

#[tokio::test]
async fn an_engine_that_is_too_old_or_silent_is_no_driver() {
    let mut machine = Machine::new("x86_64");
    for version in [
        json!({ "Arch": "amd64", "ApiVersion": "1.40" }),
        json!({ "Arch": "amd64", "ApiVersion": "1.44", "Os": "windows" }),
        json!({ "Arch": "amd64" }),
    ] {
        let report = machine.take_with(&engine(&json!({ "Architecture": "x86_64" }), &version)).await;
        assert_eq!((report.architecture.as_str(), report.drivers.len()), ("x86_64", 0), "{version}");
    }
    let mute = Fake::start(|_| Response::missing());
    let report = machine.take_with(&mute).await;
    assert_eq!((report.architecture.as_str(), report.drivers.len()), ("x86_64", 0));
    machine.options.engine = Some("/nonexistent/engine.sock".into());
    assert_eq!(machine.take().await, report);
}

#[tokio::test]
async fn emulation_counts_where_its_interpreter_is() {
    let machine = Machine::new("x86_64");
    let handler = |flags: &str, interpreter: &str, machine: &str| {
        format!(
            "enabled\ninterpreter {interpreter}\nflags: {flags}\noffset 0\nmagic 7f454c460201010000000000000000000200{machine}\n"
        )
    };
    let folder = "proc/sys/fs/binfmt_misc";
    machine.write(&format!("{folder}/status"), "enabled\n");
    machine.write(&format!("{folder}/register"), "");
    machine.write(&format!("{folder}/qemu-aarch64"), handler("POCF", "/gone/qemu-aarch64", "b700"));
    machine.write(&format!("{folder}/qemu-riscv64"), handler("OC", "/usr/bin/qemu-riscv64", "f300"));
    machine.write(&format!("{folder}/qemu-x86_64"), handler("F", "/usr/bin/qemu-x86_64", "3e00"));
    assert_eq!(machine.take().await.emulated_architectures, [Architecture::Arm64]);
    machine.write("usr/bin/qemu-riscv64", "");
    assert_eq!(machine.take().await.emulated_architectures, [Architecture::Arm64, Architecture::Riscv64]);
    machine.write(&format!("{folder}/status"), "disabled\n");
    assert_eq!(machine.take().await.emulated_architectures, []);
}

#[tokio::test]
async fn a_machine_that_does_not_say_what_it_has_is_an_error_that_names_it() {
    let machine = Machine::new("x86_64");
    machine.write("proc/meminfo", "nothing");
    let error = take(&machine.options).await.unwrap_err().to_string();
    assert!(error.contains("proc/meminfo") && error.contains("MemTotal"), "{error}");
    fs::remove_file(machine.root.path().join("sys/devices/system/cpu/online")).unwrap();
    let error = take(&machine.options).await.unwrap_err().to_string();
    assert!(error.contains("proc/cpuinfo"), "{error}");
}

#[tokio::test]
async fn this_machine_with_a_real_engine_is_the_same_every_time_and_quickly() {
    let Some(engine) = shared() else { return };
    let options = Options {
        root: "/".into(),
        kernel: Kernel::running().unwrap(),
        engine: Some(engine.socket()),
        state_dir: Path::new("/var/lib/starlink-agent").to_owned(),
        exec: true,
    };
    let first = take(&options).await.unwrap();
    assert_eq!(first.drivers, [Driver::Docker, Driver::Exec]);
    assert_eq!(
        Architecture::parse(&first.architecture).unwrap().as_str(),
        std::env::consts::ARCH.replace("aarch64", "arm64")
    );
    assert!(first.capacity.cpu_millis >= 1000 && first.capacity.memory_mib > 0 && first.capacity.storage_mib > 0);
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(take(&options).await.unwrap(), first);
    }
    let each = began.elapsed() / 10;
    assert!(each < Duration::from_millis(500), "{each:?}");
    println!("one look: {each:?}");
}
