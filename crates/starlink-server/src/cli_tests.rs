use super::*;
use clap::{CommandFactory, error::ErrorKind};
use domain::entropy::Entropy;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

fn parse(arguments: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["starlink-server"].into_iter().chain(arguments.split_whitespace()))
}

fn checked(arguments: &str) -> (String, Exit) {
    let cli = parse(arguments).unwrap();
    let mut out = Vec::new();
    let exit = check_config(&Config::load(&cli.settings, []), &mut out).unwrap();
    (String::from_utf8(out).unwrap(), exit)
}

#[test]
fn the_commands_fit_together() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_command_the_help_is_shown_and_nothing_is_done() {
    let kind = |arguments| parse(arguments).err().map(|error| (error.kind(), error.exit_code()));
    assert_eq!(kind(""), Some((ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, 2)));
    assert_eq!(kind("--workers 2"), Some((ErrorKind::MissingSubcommand, 2)));
    assert_eq!(kind("token"), Some((ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, 2)));
    assert_eq!(kind("serve --unknown"), Some((ErrorKind::UnknownArgument, 2)));
    assert_eq!(kind("--help"), Some((ErrorKind::DisplayHelp, 0)));
}

#[test]
fn settings_may_stand_before_or_after_the_command() {
    for arguments in [
        "--listen 127.0.0.1:1 serve",
        "serve --listen 127.0.0.1:1",
        "token create --name ci --role viewer --listen 127.0.0.1:1",
    ] {
        let config = Config::load(&parse(arguments).unwrap().settings, []).unwrap();
        assert_eq!(config.listen.port(), 1, "{arguments}");
    }
}

#[test]
fn a_token_has_a_name_a_role_and_perhaps_rooms() {
    let cli = parse("token create --name ci --role operator --scope fleet --scope pools --expires-in-days 30").unwrap();
    let Command::Token { command: TokenCommand::Create(token) } = cli.command else { panic!("another command") };
    assert_eq!((token.name.as_str(), token.role, token.expires_in_days), ("ci", Role::Operator, Some(30)));
    assert_eq!(token.scopes, [Room::Fleet, Room::Pools]);
    for wrong in ["--name ci", "--name ci --role root", "--name ci --role viewer --scope x", "--name= --role viewer"] {
        assert!(parse(&format!("token create {wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn a_wrong_url_to_copy_from_does_not_show_its_password() {
    let error = parse("copy --from mysql://u:hunter2@h/x --to sqlite:x.db").err().unwrap();
    assert!(error.to_string().contains("must be sqlite:PATH"), "{error}");
    assert!(parse("copy --from sqlite:x.db --to postgres://u:p@h/x").is_ok());
}

#[test]
fn check_config_prints_a_file_that_means_the_same() {
    let (text, exit) = checked("check-config --workers 2 --cors-origin https://a.example --data-dir /nonexistent");
    assert_eq!(exit, Exit::Done, "{text}");
    assert!(text.contains("workers = 2 # flag --workers\n"), "{text}");
    assert!(text.contains("listen = \"127.0.0.1:8000\" # default\n"), "{text}");
    assert!(text.contains("# tls_cert is not set\n"), "{text}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("again.toml");
    fs::write(&path, &text).unwrap();
    let (again, _) = checked(&format!("check-config --config {}", path.display()));
    let values = |text: &str| text.lines().map(|line| line.split(" # ").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&again), values(&text));
}

#[test]
fn check_config_shows_no_password() {
    let (text, _) = checked("check-config --database-url postgres://u:hunter2@h/x");
    assert!(text.contains("postgres://u:***@h/x") && !text.contains("hunter2"), "{text}");
}

#[test]
fn check_config_says_what_cannot_be_used() {
    let (text, exit) = checked("check-config --listen 0.0.0.0:80");
    assert_eq!(exit, Exit::Usage);
    assert!(text.contains("# wrong: listen (flag --listen)") && text.contains("cannot be used"), "{text}");
    let (text, exit) = checked("check-config --tls-cert /nonexistent/c.pem --tls-key /nonexistent/k.pem");
    assert_eq!(exit, Exit::Usage);
    assert!(text.contains("# wrong: cannot read certificate from /nonexistent/c.pem"), "{text}");
}

#[test]
fn check_config_looks_at_the_audit_key_but_makes_none() {
    struct Zero;
    impl Entropy for Zero {
        fn bytes(&self) -> [u8; 32] {
            [0; 32]
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let check = |path: &Path| checked(&format!("check-config --data-dir {}", path.display()));
    assert_eq!(check(directory.path()).1, Exit::Done);
    let key = directory.path().join("audit.key");
    assert!(!key.exists());
    data_dir::read_or_create_key(&key, &Zero).unwrap();
    assert_eq!(check(directory.path()).1, Exit::Done);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (text, exit) = check(directory.path());
    assert!(exit == Exit::Usage && text.contains("run chmod 600"), "{text}");
}

#[test]
fn causes_are_told_once() {
    let inner = std::io::Error::other("the disk is on fire");
    let outer = data_dir::DataDirError::File { action: "read", path: "/k".into(), source: inner };
    assert_eq!(with_causes(&outer), "cannot read /k: the disk is on fire");
}
