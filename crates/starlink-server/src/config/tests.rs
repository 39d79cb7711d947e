use super::*;
use clap::{CommandFactory, Parser};
use std::{collections::BTreeSet, fs};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: SettingFlags,
}

/// A configuration from flags, variables and, if there is any, the text of a file.
fn load(flags: &[&str], variables: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("starlink.toml");
    fs::write(&path, file).unwrap();
    let config = (!file.is_empty()).then(|| format!("--config={}", path.display()));
    let flags = ["test"].into_iter().chain(config.as_deref()).chain(flags.iter().copied());
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    Config::load(&Flags::try_parse_from(flags).unwrap().settings, variables)
}

fn check_refused(result: Result<Config, ConfigError>, wanted: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    let text = error.to_string();
    assert!(wanted.iter().all(|part| text.contains(part)), "{text}");
}

/// A value that is not the default, and what must be given with it.
fn example(setting: Setting) -> (&'static str, &'static [(&'static str, &'static str)]) {
    match setting {
        Setting::Listen => ("127.0.0.1:0", &[]),
        Setting::DataDir => ("/var/lib/starlink", &[]),
        Setting::DatabaseUrl => ("postgres://starlink@db/starlink", &[]),
        Setting::CorsOrigin => ("https://console.example.org", &[]),
        Setting::TlsCert => ("/etc/cert.pem", &[("STARLINK_TLS_KEY", "/etc/key.pem")]),
        Setting::TlsKey => ("/etc/key.pem", &[("STARLINK_TLS_CERT", "/etc/cert.pem")]),
        Setting::BehindProxy
        | Setting::MetricsOpen
        | Setting::NoLocalAgent
        | Setting::AllowExec
        | Setting::ExecAllowRoot
        | Setting::AlertPrivateTargets => ("true", &[]),
        Setting::AuditKeyFile => ("/etc/audit.key", &[]),
        Setting::AuditRetentionDays => ("90", &[]),
        Setting::SampleRetentionDays => ("45", &[]),
        Setting::TaskPatienceSeconds => ("30", &[]),
        Setting::AgentGraceSeconds => ("5", &[]),
        Setting::AlertIntervalSeconds => ("1", &[]),
        Setting::ExecUser => ("builder", &[]),
        Setting::AllowMount => ("/srv/data", &[]),
        Setting::DockerSocket => ("/run/podman/podman.sock", &[]),
        Setting::RegistryAuth => ("/etc/starlink/registries.json", &[]),
        Setting::InsecureRegistry => ("registry.example.org:5000", &[]),
        Setting::Log => ("json", &[]),
        Setting::LogLevel => ("warn,domain=debug", &[]),
        Setting::Workers => ("3", &[]),
    }
}

fn as_toml(setting: Setting, text: &str) -> toml::Value {
    match setting.kind() {
        Kind::Text => text.into(),
        Kind::Number => text.parse::<i64>().unwrap().into(),
        Kind::Switch => text.parse::<bool>().unwrap().into(),
        Kind::List => vec![text].into(),
    }
}

#[test]
fn every_setting_can_be_given_by_flag_variable_and_file() {
    for setting in Setting::ALL.iter().copied() {
        let (text, others) = example(setting);
        let wanted = Some(as_toml(setting, text));
        let flag = format!("--{}={text}", setting.flag());
        let variable = setting.variable();
        let file = format!("# first line\n{} = {}\n", setting.name(), as_toml(setting, text));

        let by_flag = load(&[&flag], others, "").unwrap();
        let by_variable = load(&[], &[&[(variable.as_str(), text)], others].concat(), "").unwrap();
        let by_file = load(&[], others, &file).unwrap();
        let by_nothing = load(&[], &[], "").unwrap();

        for config in [&by_flag, &by_variable, &by_file] {
            assert_eq!(config.shown(setting), wanted, "{setting:?}");
        }
        assert_ne!(by_nothing.shown(setting), wanted, "{setting:?}");
        assert_eq!(by_flag.source(setting), &Source::Flag(setting.flag()));
        assert_eq!(by_variable.source(setting), &Source::Variable(variable));
        assert!(matches!(by_file.source(setting), Source::File { line: 2, .. }), "{setting:?}");
        assert_eq!(by_nothing.source(setting), &Source::Default);
    }
}

#[test]
fn a_flag_wins_over_a_variable_and_that_over_the_file() {
    let file = "listen = '127.0.0.1:1'\nlog = 'json'\nworkers = 1";
    let config = load(&["--listen=127.0.0.1:3"], &[("STARLINK_LISTEN", "127.0.0.1:2"), ("STARLINK_LOG", "text")], file);
    let config = config.unwrap();
    assert_eq!((config.listen.port(), config.log, config.workers), (3, LogFormat::Text, 1));
}

#[test]
fn without_anything_the_server_keeps_to_itself() {
    let config = load(&[], &[], "").unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.database_url.to_string(), "sqlite:./starlink-data/starlink.db");
    assert_eq!(config.audit_key_file, PathBuf::from("./starlink-data/audit.key"));
    assert!((1..=DEFAULT_WORKERS).contains(&config.workers));
    assert!(!config.behind_proxy && !config.metrics_open && config.tls.is_none() && config.cors_origins.is_empty());
}

#[test]
fn what_follows_from_the_data_directory_moves_with_it() {
    let config = load(&["--data-dir=/data"], &[], "").unwrap();
    assert_eq!(config.database_url.to_string(), "sqlite:/data/starlink.db");
    assert_eq!(config.audit_key_file, PathBuf::from("/data/audit.key"));
}

#[test]
fn a_switch_needs_no_value_as_a_flag_and_can_be_switched_off_again() {
    assert!(load(&["--behind-proxy"], &[], "").unwrap().behind_proxy);
    assert!(!load(&["--behind-proxy=false"], &[("STARLINK_BEHIND_PROXY", "true")], "").unwrap().behind_proxy);
    check_refused(load(&[], &[("STARLINK_BEHIND_PROXY", "yes")], ""), &["behind_proxy", "true or false, not \"yes\""]);
}

#[test]
fn several_origins_are_a_repeated_flag_a_list_with_commas_or_an_array() {
    let wanted = ["https://a.example", "http://localhost:3000"];
    let flags = ["--cors-origin=https://a.example", "--cors-origin=http://localhost:3000"];
    let variable = [("STARLINK_CORS_ORIGIN", "https://a.example, http://localhost:3000,")];
    assert_eq!(load(&flags, &[], "").unwrap().cors_origins, wanted);
    assert_eq!(load(&[], &variable, "").unwrap().cors_origins, wanted);
    let file = "cors_origin = ['https://a.example', 'http://localhost:3000']";
    assert_eq!(load(&[], &[], file).unwrap().cors_origins, wanted);
}

#[test]
fn plain_http_stays_on_loopback() {
    for listen in ["0.0.0.0:8000", "[::]:8000", "192.0.2.7:80", "[::ffff:192.0.2.7]:80"] {
        let flag = format!("--listen={listen}");
        check_refused(load(&[&flag], &[], ""), &["listen (flag --listen)", "plain HTTP", "tls_cert", "behind_proxy"]);
        assert!(load(&[&flag, "--behind-proxy"], &[], "").is_ok());
        assert!(load(&[&flag, "--tls-cert=c", "--tls-key=k"], &[], "").is_ok());
    }
    for listen in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:8000", "[::ffff:127.0.0.1]:80"] {
        assert!(load(&[&format!("--listen={listen}")], &[], "").is_ok(), "{listen}");
    }
}

#[test]
fn a_certificate_needs_its_key() {
    check_refused(load(&["--tls-cert=c"], &[], ""), &["tls_cert (flag --tls-cert)", "needs tls_key"]);
    check_refused(load(&[], &[("STARLINK_TLS_KEY", "k")], ""), &["tls_key (environment variable", "needs tls_cert"]);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_what_was_meant() {
    let unknown = |file| load(&[], &[], file);
    check_refused(
        unknown("\n\nlisten_on = '127.0.0.1:1'"),
        &["listen_on (", "starlink.toml:3): there is no such setting"],
    );
    check_refused(unknown("data-dir = 'x'"), &["did you mean data_dir?"]);
    check_refused(unknown("databse_url = 'x'"), &["did you mean database_url?"]);
    check_refused(unknown("[server]\nlisten = 'x'"), &["server (", ":1)"]);
}

#[test]
fn a_wrong_type_is_named_with_its_key() {
    let wrong = |file| load(&[], &[], file);
    check_refused(
        wrong("workers = '4'"),
        &["workers (", ":1)", "whole number without quotes, not a value of type string"],
    );
    check_refused(wrong("listen = 8000"), &["listen (", "text in quotes"]);
    check_refused(wrong("behind_proxy = 'true'"), &["behind_proxy (", "true or false without quotes"]);
    check_refused(wrong("cors_origin = 'https://a.example'"), &["cors_origin (", "array of texts"]);
    check_refused(wrong("workers = -1"), &["workers (", "from 1 to 256, not \"-1\""]);
    check_refused(wrong("workers = 99999999999999999999"), &["99999999999999999999"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_who_named_it() {
    let missing = "--config=/nonexistent/starlink.toml";
    check_refused(load(&[missing], &[], ""), &["config (flag --config)", "/nonexistent/starlink.toml", "No such file"]);
    let variable = [("STARLINK_CONFIG", "/nonexistent/x.toml")];
    check_refused(load(&[], &variable, ""), &["config (environment variable STARLINK_CONFIG)"]);
}

#[test]
fn a_malformed_file_is_refused_without_showing_what_it_holds() {
    let error = load(&[], &[], "log = 'json'\ndatabase_url = 'postgres://u:hunter2@db/x").unwrap_err();
    assert!(error.to_string().contains("starlink.toml:2): is not valid TOML"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn all_problems_are_told_at_once() {
    let error =
        load(&["--log=xml", "--cors-origin=*", "--cors-origin=nonsense"], &[("STARLINK_WORKERS", "0")], "x = 1");
    let settings: Vec<String> = error.unwrap_err().problems.into_iter().map(|problem| problem.setting).collect();
    assert_eq!(settings, ["x", "cors_origin", "cors_origin", "log", "workers"]);
}

#[test]
fn unknown_variables_of_ours_are_warned_of_and_others_are_not() {
    let variables = [("STARLINK_PORT", "secret"), ("STARLINK_LISTN", ""), ("STARLINK_WORKER", "secret"), ("HOME", "/")];
    let warnings = load(&[], &variables, "").unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].ends_with("STARLINK_PORT is not a setting and was ignored"), "{warnings:?}");
    assert!(warnings[1].contains("STARLINK_WORKER") && warnings[1].contains("mean STARLINK_WORKERS?"), "{warnings:?}");
    assert!(!warnings.concat().contains("secret"));
}

#[test]
fn an_empty_variable_is_none() {
    assert!(load(&[], &[("STARLINK_LISTEN", ""), ("STARLINK_CONFIG", "")], "").is_ok());
}

#[test]
fn a_password_is_never_shown() {
    let url = "postgres://starlink:hunter2@db/starlink";
    let config = load(&[], &[("STARLINK_DATABASE_URL", url)], "").unwrap();
    let shown = format!("{config:?} {:?}", config.shown(Setting::DatabaseUrl));
    assert!(!shown.contains("hunter2") && shown.contains("postgres://starlink:***@db/starlink"), "{shown}");
    assert_eq!(config.database_url, url.parse().unwrap());
    check_refused(load(&["--database-url=mysql://u:p@h/x"], &[], ""), &["database_url (flag --database-url): must be"]);
}

#[test]
fn the_help_tells_each_settings_variable_and_default() {
    let help = Flags::command().term_width(0).render_long_help().to_string();
    for setting in Setting::ALL {
        assert!(help.contains(&format!("--{}", setting.flag())), "{help}");
        assert!(help.contains(&format!("[env: {}]", setting.variable())), "{help}");
    }
}

fn documentation() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md")).unwrap()
}

#[test]
fn the_documentation_lists_exactly_these_settings() {
    let text = documentation();
    let rows: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let names: BTreeSet<&str> = Setting::ALL.iter().map(|setting| setting.name()).collect();
    assert_eq!(rows, names);
    for setting in Setting::ALL {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{}`", setting.name()))).unwrap();
        if let Fallback::Value(default) | Fallback::Derived(default) = setting.fallback() {
            assert!(row.contains(default), "the default of {setting:?} is {default}: {row}");
        }
    }
}

#[test]
fn the_example_in_the_documentation_is_valid() {
    let text = documentation();
    let example = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let config = load(&[], &[], example).unwrap();
    assert!(Setting::ALL.iter().filter(|setting| config.source(**setting) != &Source::Default).count() > 5);
}
