//! What was given, and where: flags, environment variables and the file, each as plain text per setting.
//!
//! Nothing is interpreted here. A layer only knows names and sources, so that whatever reads a value later can say
//! where a wrong one came from.

use super::{
    error::{Problem, Source},
    settings::{Kind, Setting, nearest},
};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

const CONFIG: &str = "config";
const CONFIG_VARIABLE: &str = "STARLINK_CONFIG";
const PREFIX: &str = "STARLINK_";

/// The values of one setting and where they came from. Not `Debug`: a value may be a password.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) values: Vec<String>,
    pub(super) source: Source,
}

/// One layer, or several on top of each other.
pub(super) type Layer = BTreeMap<Setting, Given>;

/// The flags of all settings, and the one that names the configuration file.
pub struct SettingFlags {
    file: Option<PathBuf>,
    given: Layer,
}

impl SettingFlags {
    pub(super) fn layer(&self) -> &Layer {
        &self.given
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Setting::ALL.iter().filter_map(|setting| {
            let on_command_line = matches.value_source(setting.name()) == Some(ValueSource::CommandLine);
            let values = on_command_line.then(|| matches.get_many::<String>(setting.name()))??;
            Some((*setting, Given { values: values.cloned().collect(), source: Source::Flag(setting.flag()) }))
        });
        Ok(Self { file: matches.get_one::<PathBuf>(CONFIG).cloned(), given: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("TOML file with settings [env: {CONFIG_VARIABLE}]"))
            .global(true)
            .help_heading("Settings");
        command.arg(config).args(Setting::ALL.iter().map(|setting| setting.arg()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// What the environment says.
#[derive(Default)]
pub(super) struct Environment {
    pub(super) given: Layer,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    file: Option<PathBuf>,
}

impl Environment {
    /// Sorts out the variables that are ours. An empty one counts as not given, as compose files pass what is unset.
    pub(super) fn read(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            if let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX))
                && !value.is_empty()
            {
                environment.take(name, value);
            }
        }
        // The order of an environment is random; that of messages should not be.
        environment.warnings.sort();
        environment
    }

    fn take(&mut self, name: &str, value: OsString) {
        if name == CONFIG_VARIABLE {
            self.file = Some(PathBuf::from(value));
            return;
        }
        let Some(setting) = Setting::ALL.iter().copied().find(|setting| setting.variable() == name) else {
            self.warnings.push(unknown_variable(name));
            return;
        };
        let source = Source::Variable(name.to_owned());
        match value.into_string() {
            Ok(text) => {
                self.given.insert(setting, Given { values: split(setting, text), source });
            }
            Err(_) => self.problems.push(Problem::new(setting.name(), source, "must be valid UTF-8")),
        }
    }
}

fn split(setting: Setting, text: String) -> Vec<String> {
    if setting.kind() == Kind::List {
        text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    } else {
        vec![text]
    }
}

fn unknown_variable(name: &str) -> String {
    // Without the prefix, which would make any two names look alike.
    let key = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase();
    let meant = nearest(&key).map(|setting| format!("; did you mean {}?", setting.variable()));
    format!("the environment variable {name} is not a setting and was ignored{}", meant.unwrap_or_default())
}

/// The file to read, if one was named, and who named it.
pub(super) fn file_of(flags: &SettingFlags, environment: &Environment) -> Option<(PathBuf, Source)> {
    let by_flag = flags.file.clone().map(|path| (path, Source::Flag(CONFIG.to_owned())));
    let by_variable = || environment.file.clone().map(|path| (path, Source::Variable(CONFIG_VARIABLE.to_owned())));
    by_flag.or_else(by_variable)
}

/// Reads the text of a configuration file; problems are noted and what is right is kept.
pub(super) fn parse_file(path: &Path, text: &str, problems: &mut Vec<Problem>) -> Layer {
    let source = |offset: usize| {
        let before = text.as_bytes().iter().take(offset);
        Source::File { path: path.to_owned(), line: before.filter(|byte| **byte == b'\n').count() + 1 }
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(error) => {
            // The error's own `Display` would show the line, which may hold a password.
            let at = source(error.span().map_or(0, |span| span.start));
            problems.push(Problem::new(CONFIG, at, format!("is not valid TOML: {}", error.message())));
            return Layer::new();
        }
    };
    let mut layer = Layer::new();
    for (key, value) in table {
        let at = source(key.span().start);
        let Some(setting) = Setting::find(key.get_ref()) else {
            problems.push(Problem::new(key.get_ref().as_ref(), at, unknown_key(key.get_ref())));
            continue;
        };
        match texts(setting.kind(), value.get_ref()) {
            Some(values) => {
                layer.insert(setting, Given { values, source: at });
            }
            None => problems.push(Problem::new(setting.name(), at, wrong_type(setting.kind(), value.get_ref()))),
        }
    }
    layer
}

fn unknown_key(key: &str) -> String {
    let meant = nearest(key).map(|setting| format!("; did you mean {}?", setting.name()));
    format!("there is no such setting{}", meant.unwrap_or_default())
}

fn texts(kind: Kind, value: &DeValue<'_>) -> Option<Vec<String>> {
    match kind {
        Kind::Text => Some(vec![value.as_str()?.to_owned()]),
        Kind::Switch => Some(vec![value.as_bool()?.to_string()]),
        Kind::Number => {
            let number = value.as_integer()?;
            // Out of range for `i64` is out of range for every setting: the digits as they stand say so as well.
            let plain = i64::from_str_radix(number.as_str(), number.radix());
            Some(vec![plain.map_or_else(|_| number.as_str().to_owned(), |number| number.to_string())])
        }
        Kind::List => {
            let items = value.as_array()?.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            items.collect()
        }
    }
}

fn wrong_type(kind: Kind, value: &DeValue<'_>) -> String {
    let wanted = match kind {
        Kind::Text => "a text in quotes",
        Kind::Number => "a whole number without quotes",
        Kind::Switch => "true or false without quotes",
        Kind::List => "an array of texts",
    };
    format!("must be {wanted}, not a value of type {}", value.type_str())
}
