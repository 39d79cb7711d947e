use super::*;
use crate::meter::tree::Tree;
use std::process::Command;

/// As much of NVIDIA's library as is asked: two cards, of which the second is divided and does not say how busy it is.
const LIBRARY: &str = r#"
typedef struct { unsigned gpu, memory; } rates;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int error) { return error ? "no" : "yes"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(index + 1UL); return 0; }
int nvmlDeviceGetUtilizationRates(void *device, rates *rates) { rates->gpu = 40; return device == (void *)2 ? 3 : 0; }
int nvmlDeviceGetMemoryInfo_v2(void *device, memory *memory) {
    memory->total = device == (void *)2 ? 3000 : 1000;
    memory->used = 500;
    return 0;
}
"#;

fn readings(busy: Option<f64>, memory: Option<f64>) -> Readings {
    let mut readings = Readings::default();
    readings.set(Metric::GpuUtilization, busy);
    readings.set(Metric::GpuMemoryUtilization, memory);
    readings
}

#[test]
fn several_cards_are_taken_together() {
    let card =
        |busy, memory: Option<(u64, u64)>| Card { busy, memory: memory.map(|(used, total)| Memory { used, total }) };
    for (cards, busy, memory) in [
        (vec![], None, None),
        (vec![card(Some(30.0), Some((1, 4)))], Some(30.0), Some(25.0)),
        // A large card counts for more of the memory.
        (vec![card(Some(0.0), Some((0, 10))), card(Some(50.0), Some((20, 30)))], Some(25.0), Some(50.0)),
        (vec![card(None, Some((1, 2))), card(Some(10.0), None)], Some(10.0), Some(50.0)),
        (vec![card(None, Some((0, 0)))], None, None),
    ] {
        assert_eq!(summary(&cards), readings(busy, memory), "{cards:?}");
    }
}

#[test]
fn cards_of_amd_are_what_the_kernel_shows() {
    let tree = Tree::new();
    let mut gpus = Gpus::new(tree.path(), None);
    assert!(gpus.read().is_empty());
    for (card, busy, used) in [("card0", "100\n", "1000\n"), ("card1", "50\n", "0\n")] {
        tree.write(&format!("sys/class/drm/{card}/device/gpu_busy_percent"), busy);
        tree.write(&format!("sys/class/drm/{card}/device/mem_info_vram_used"), used);
        tree.write(&format!("sys/class/drm/{card}/device/mem_info_vram_total"), "4000\n");
    }
    tree.write("sys/class/drm/card0-DP-1/status", "connected\n");
    tree.write("sys/class/drm/renderD128/device/gpu_busy_percent", "100\n");
    assert_eq!(gpus.read(), readings(Some(75.0), Some(12.5)));
    tree.write("sys/class/drm/card1/device/power/runtime_status", "suspended\n");
    assert_eq!(gpus.read(), readings(Some(100.0), Some(25.0)));
}

#[test]
fn cards_of_nvidia_are_asked_by_its_library() {
    let tree = Tree::new();
    tree.write("nvml.c", LIBRARY);
    let library = tree.path().join("libnvml.so");
    let source = tree.path().join("nvml.c");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.unwrap().success());
    let mut gpus = Gpus::new(tree.path(), Some(library.into()));
    // Without its driver the library is not loaded.
    assert!(gpus.read().is_empty() && gpus.nvml.is_none());
    tree.write("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: A\n");
    let status = "sys/bus/pci/devices/0000:01:00.0/power/runtime_status";
    tree.write(status, "suspended\n");
    assert!(gpus.read().is_empty() && gpus.nvml.is_none());
    tree.write(status, "active\n");
    assert_eq!(gpus.read(), readings(Some(40.0), Some(25.0)));
    assert_eq!(gpus.read(), readings(Some(40.0), Some(25.0)));
}

#[test]
fn a_library_that_is_not_there_is_left_alone_for_a_while() {
    let tree = Tree::new();
    tree.write("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: A\n");
    let mut gpus = Gpus::new(tree.path(), Some(tree.path().join("none.so").into()));
    assert!(gpus.read().is_empty());
    assert!(gpus.rest == REST && gpus.has_complained);
    (0..REST).for_each(|_| assert!(gpus.read().is_empty()));
    assert_eq!(gpus.rest, 0);
    gpus.read();
    assert_eq!(gpus.rest, REST);
}
