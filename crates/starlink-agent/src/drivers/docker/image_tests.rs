use super::*;
use bollard::models::ProgressDetail;
use domain::{scheduling::ArchitectureNeed, text::Name, units::Resources};

fn machine(engine: &str, need: ArchitectureNeed, emulated: &[Architecture], allow: bool) -> Machine {
    let name = Name::parse("x").unwrap();
    let spec = TaskSpec { architecture: need, allow_emulation: allow, ..TaskSpec::new(name, Resources::default()) };
    Machine::new(engine.to_owned(), &spec, |_| emulated.to_vec())
}

fn image(architecture: &str) -> ImageInspect {
    let os = Some("linux".to_owned());
    ImageInspect { os, architecture: Some(architecture.to_owned()), ..ImageInspect::default() }
}

fn check_fit(machine: &Machine, architecture: &str, expected: Result<Option<&str>, &str>) {
    let answer = machine.fit("x", &image(architecture));
    match (&answer, expected) {
        (Ok(platform), Ok(expected)) => assert_eq!(platform.as_deref(), expected),
        (Err(failure), Err(reason)) => {
            assert_eq!(failure.reason, reason);
            assert!(failure.detail.contains(architecture) && failure.detail.contains(&machine.engine), "{failure}");
        }
        _ => panic!("{architecture}: {answer:?}"),
    }
}

#[test]
fn an_image_runs_where_it_was_built_for_or_where_that_is_emulated_and_allowed() {
    let anything =
        |engine: &str, emulated: &[Architecture], allow| machine(engine, ArchitectureNeed::Universal, emulated, allow);
    let arm = [Architecture::Arm64];
    check_fit(&anything("amd64", &[], false), "amd64", Ok(None));
    check_fit(&anything("x86_64", &[], false), "amd64", Ok(None));
    check_fit(&anything("amd64", &[], false), "", Ok(None));
    check_fit(&anything("arm", &[], false), "arm", Ok(None));
    check_fit(&anything("amd64", &arm, true), "arm64", Ok(Some("linux/arm64")));
    check_fit(&anything("amd64", &arm, false), "arm64", Err("exec_format"));
    check_fit(&anything("amd64", &[], true), "arm64", Err("exec_format"));
    check_fit(&anything("amd64", &arm, true), "riscv64", Err("exec_format"));
    // 32-bit ARM is not 64-bit ARM, and s390x nothing that is ever emulated for us.
    check_fit(&anything("arm64", &arm, true), "arm", Err("exec_format"));
    check_fit(&anything("amd64", &arm, true), "s390x", Err("exec_format"));
}

#[test]
fn an_image_for_this_machine_is_no_help_to_a_task_that_needs_another_one() {
    let emulating = machine("amd64", ArchitectureNeed::Only(Architecture::Arm64), &[Architecture::Arm64], true);
    check_fit(&emulating, "amd64", Err("exec_format"));
    check_fit(&emulating, "arm64", Ok(Some("linux/arm64")));
}

#[test]
fn a_pull_asks_for_another_platform_only_if_it_is_not_the_engines_own() {
    let asked = |engine: &str, need, emulated: &[Architecture]| machine(engine, need, emulated, true).platform();
    let only = ArchitectureNeed::Only;
    assert_eq!(asked("amd64", ArchitectureNeed::Universal, &[]), "");
    assert_eq!(asked("armv7l", only(Architecture::X86_64), &[]), "");
    assert_eq!(asked("amd64", only(Architecture::X86_64), &[]), "");
    assert_eq!(asked("amd64", only(Architecture::Arm64), &[Architecture::Arm64]), "linux/arm64");
    assert_eq!(asked("arm64", only(Architecture::X86_64), &[]), "linux/amd64");
}

#[test]
fn of_an_image_for_others_only_what_is_emulated_here_is_asked_for() {
    let platforms = [Architecture::Arm64, Architecture::Riscv64].map(Platform::of).to_vec();
    let spec = TaskSpec {
        image_truth: Some(ImageTruth::pulled("sha256:1", platforms)),
        allow_emulation: true,
        ..TaskSpec::new(Name::parse("x").unwrap(), Resources::default())
    };
    let machine = Machine::new("amd64".to_owned(), &spec, |_| vec![Architecture::Riscv64]);
    assert_eq!(machine.platform(), "linux/riscv64");
}

#[test]
fn of_an_index_what_is_not_native_goes_by_a_digest_of_its_own() {
    let platforms = [Architecture::X86_64, Architecture::Arm64].map(Platform::of);
    let manifests = platforms.into_iter().zip(["sha256:2", "sha256:3"].map(str::to_owned)).collect();
    let index = ImageTruth::indexed("sha256:1", manifests);
    let check = |need, truth, expected: &str| {
        let machine = machine("amd64", need, &[Architecture::Arm64], true);
        let named = machine.named(ImageName::parse("r.example/x@sha256:1").unwrap(), truth);
        assert_eq!(named.as_str(), format!("r.example/x@{expected}"), "{need:?}");
    };
    check(ArchitectureNeed::Universal, Some(&index), "sha256:1");
    check(ArchitectureNeed::Only(Architecture::X86_64), Some(&index), "sha256:1");
    check(ArchitectureNeed::Only(Architecture::Arm64), Some(&index), "sha256:3");
    // It is no index, or nobody has asked.
    let alone = ImageTruth::pulled("sha256:1", vec![Platform::of(Architecture::Arm64)]);
    check(ArchitectureNeed::Only(Architecture::Arm64), Some(&alone), "sha256:1");
    check(ArchitectureNeed::Only(Architecture::Arm64), None, "sha256:1");
}

fn news(layer: &str, status: &str, progress: Option<(i64, i64)>) -> CreateImageInfo {
    let progress_detail =
        progress.map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) });
    CreateImageInfo {
        id: Some(layer.to_owned()),
        status: Some(status.to_owned()),
        progress_detail,
        ..CreateImageInfo::default()
    }
}

#[test]
fn progress_only_grows_and_ends_at_a_hundred() {
    let mut progress = Progress::default();
    let mut told = Vec::new();
    for news in [
        news("latest", "Pulling from library/x", None),
        news("a", "Pulling fs layer", None),
        news("b", "Pulling fs layer", None),
        news("a", "Downloading", Some((50, 100))),
        news("a", "Downloading", Some((50, 100))),
        news("b", "Already exists", None),
        news("c", "Pulling fs layer", None),
        news("a", "Extracting", Some((100, 100))),
        news("a", "Pull complete", None),
        news("c", "Downloading", Some((0, 0))),
        news("c", "Pull complete", None),
    ] {
        told.extend(progress.hear(&news));
    }
    assert_eq!(told, [17, 67, 100]);
}
