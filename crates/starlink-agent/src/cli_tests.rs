use super::*;
use clap::CommandFactory;

fn settings(arguments: &[&str]) -> SettingArgs {
    let arguments = ["starlink-agent", "run"].iter().chain(arguments);
    match Cli::try_parse_from(arguments).unwrap_or_else(|error| panic!("{error}")).command {
        Command::Run(settings) => settings,
        Command::Join(_) | Command::Shim { .. } => unreachable!(),
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
    let help = Cli::command().find_subcommand_mut("join").unwrap().render_long_help().to_string();
    for flag in ["--server", "--token", "--token-file", "--state-dir", "--ca", "--allow-exec", "--allow-mount"] {
        assert!(help.contains(flag), "{flag}");
    }
    assert!(!Cli::command().render_long_help().to_string().contains("shim"));
}

#[test]
fn what_is_given_goes_before_what_was_kept() {
    let kept = Settings::default()
        .joined(&settings(&[
            "--server",
            "https://a.example",
            "--allow-exec",
            "--allow-mount",
            "/srv",
            "--ca",
            "/ca.pem",
        ]))
        .unwrap();
    let again = kept.clone().overridden(&settings(&[])).unwrap();
    assert_eq!(again, kept);
    let other =
        kept.clone().overridden(&settings(&["--server", "https://b.example", "--allow-mount", "data"])).unwrap();
    assert_eq!(other.server.as_deref(), Some("https://b.example"));
    assert_eq!(other.allow_mounts, [std::path::absolute("data").unwrap()]);
    assert!(other.allow_exec && other.ca == Some("/ca.pem".into()));
}

#[test]
fn joining_again_takes_back_what_is_not_given_but_the_server() {
    let kept = Settings::default().joined(&settings(&["--server", "https://a.example", "--allow-exec"])).unwrap();
    let joined = kept.joined(&settings(&["--allow-mount", "/srv"])).unwrap();
    assert_eq!(joined.server.as_deref(), Some("https://a.example"));
    assert!(!joined.allow_exec && joined.allow_mounts == [PathBuf::from("/srv")]);
}

#[test]
fn settings_are_kept_and_newer_ones_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::open(directory.path()).unwrap();
    assert_eq!(Settings::kept(&state).unwrap(), None);
    let settings = Settings { server: Some("https://a.example".to_owned()), allow_root: true, ..Settings::default() };
    settings.keep(&state).unwrap();
    assert_eq!(Settings::kept(&state).unwrap(), Some(settings));
    std::fs::write(directory.path().join("agent.json"), r#"{"server": "https://b.example", "newer": [1]}"#).unwrap();
    assert_eq!(Settings::kept(&state).unwrap().unwrap().server.as_deref(), Some("https://b.example"));
}

#[test]
fn a_join_token_is_read_from_a_file_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "slj_secret\n").unwrap();
    let token = join_token(None, Some(&file)).unwrap().unwrap();
    assert_eq!(token.expose(), "slj_secret");
    let missing = join_token(None, Some(&directory.path().join("absent"))).unwrap_err();
    assert!(missing.is_usage() && missing.to_string().contains("--token-file"), "{missing}");
    assert!(join_token(Some(" ".to_owned()), None).unwrap().is_none());
}

#[test]
fn what_trying_again_cannot_help_is_told_apart() {
    let usage = [
        CliError::Start(StartError::NotJoined),
        CliError::Stopped(Stopped::TokenRefused(String::new())),
        CliError::Stopped(Stopped::JoinRefused(String::new())),
        CliError::Usage(String::new()),
    ];
    assert!(usage.iter().all(CliError::is_usage));
    let passing = [CliError::Stopped(Stopped::State(String::new())), CliError::System(io::Error::other(""))];
    assert!(!passing.iter().any(CliError::is_usage));
}
