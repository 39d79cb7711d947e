use super::*;
use bollard::models::ProgressDetail;

#[test]
fn a_login_shows_no_password() {
    let login = Login { username: "robot".to_owned(), password: "reg-s3cret-77".to_owned() };
    let text = format!("{:?}", Logins::from([("docker.io".to_owned(), login)]));
    assert!(text.contains("robot") && !text.contains("s3cret"), "{text}");
}

#[test]
fn names_of_images_are_taken_apart() {
    let digest = "registry.example.com:5000/a/b@sha256:0123";
    for (name, tagged, host) in [
        ("busybox", "busybox:latest", "docker.io"),
        ("library/busybox:1.36", "library/busybox:1.36", "docker.io"),
        ("index.docker.io/library/busybox", "index.docker.io/library/busybox:latest", "docker.io"),
        ("localhost/x", "localhost/x:latest", "localhost"),
        ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000"),
        ("ghcr.io/a/b:v1", "ghcr.io/a/b:v1", "ghcr.io"),
        (digest, digest, "registry.example.com:5000"),
    ] {
        assert!(is_reference(name), "{name}");
        assert_eq!((with_tag(name).as_str(), registry(name)), (tagged, host), "{name}");
    }
}

#[test]
fn what_would_lead_elsewhere_in_the_engines_api_is_no_image() {
    for name in ["", "../containers", "a/../b", "a//b", "/a", "a/", "a?b", "a#b", "a b", "a%2fb", "ä", &"a".repeat(600)]
    {
        assert!(!is_reference(name), "{name}");
    }
}

fn check_fit(image: &str, engine: &str, allow: bool, emulated: &[Architecture], expected: Result<Option<&str>, &str>) {
    let answer = fit("x", image, engine, allow, || emulated.to_vec());
    match (&answer, expected) {
        (Ok(platform), Ok(expected)) => assert_eq!(platform.as_deref(), expected),
        (Err(failure), Err(reason)) => {
            assert_eq!(failure.reason, reason);
            assert!(failure.detail.contains(image) && failure.detail.contains(engine), "{failure}");
        }
        _ => panic!("{image} on {engine}: {answer:?}"),
    }
}

#[test]
fn an_image_runs_where_it_was_built_for_or_where_that_is_emulated_and_allowed() {
    let arm = [Architecture::Arm64];
    check_fit("amd64", "amd64", false, &[], Ok(None));
    check_fit("amd64", "x86_64", false, &[], Ok(None));
    check_fit("", "amd64", false, &[], Ok(None));
    check_fit("arm", "arm", false, &[], Ok(None));
    check_fit("arm64", "amd64", true, &arm, Ok(Some("linux/arm64")));
    check_fit("arm64", "amd64", false, &arm, Err("exec_format"));
    check_fit("arm64", "amd64", true, &[], Err("exec_format"));
    check_fit("riscv64", "amd64", true, &arm, Err("exec_format"));
    // 32-bit ARM is not 64-bit ARM, and s390x nothing that is ever emulated for us.
    check_fit("arm", "arm64", true, &arm, Err("exec_format"));
    check_fit("s390x", "amd64", true, &arm, Err("exec_format"));
}

#[test]
fn a_pull_asks_for_another_platform_only_if_it_is_not_the_engines_own() {
    assert_eq!(platform(ArchitectureNeed::Universal, "amd64"), "");
    assert_eq!(platform(ArchitectureNeed::Only(Architecture::X86_64), "amd64"), "");
    assert_eq!(platform(ArchitectureNeed::Only(Architecture::Arm64), "amd64"), "linux/arm64");
    assert_eq!(platform(ArchitectureNeed::Only(Architecture::X86_64), "arm64"), "linux/amd64");
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
