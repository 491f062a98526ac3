//! Configuration of a program from a file, the environment and flags.
//!
//! All sources have the same keys: `data_dir` in the TOML file is the variable
//! `CHATCHAT_DATA_DIR` and the flag `--data-dir`. Besides a program's own keys there are those of
//! [`Config`]. The sources become one table, which is then read strictly.

use std::{ffi::OsString, fs, io::ErrorKind, path::Path};

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use super::{ProgramError, output};
use crate::{config::Config, store::postgres::masked};

pub mod node;

const VARIABLE: &str = "CHATCHAT_";

/// Variables of `chatctl` and of the project's own tests, which are no settings of a node.
const OF_OTHERS: [&str; 5] = [
    "CHATCHAT_MASTER",
    "CHATCHAT_CACERT",
    "CHATCHAT_REQUIRE_ALL",
    "CHATCHAT_CLUSTER",
    "CHATCHAT_CI_SKIP_INSTALL",
];

/// Key of one setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name, as in the file.
    pub name: &'static str,
    /// Kind of the value.
    pub kind: ValueKind,
    /// Text for `--help`.
    pub help: &'static str,
}

/// Kind of a value, which decides how the text of a flag is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Text.
    Text,
    /// Text that is not shown.
    Secret,
    /// Text that is shown without the password in it.
    Url,
    /// List of texts, separated by commas in flags and variables.
    List,
    /// Whole number.
    Count,
    /// True or false; the bare flag means true.
    Switch,
}

/// Settings of a program, from all sources.
#[derive(Debug)]
pub struct Settings {
    keys: &'static [Key],
    own: Table,
    /// Limits and time-outs, validated.
    pub config: Config,
    /// Whether the program only prints its settings.
    pub check_only: bool,
}

impl Settings {
    /// Reads arguments, variables and the file that they name.
    ///
    /// # Errors
    /// [`ProgramError::Arguments`], [`ProgramError::Usage`].
    pub fn read(
        command: Command,
        keys: &'static [Key],
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, ProgramError> {
        let matches = with_keys(command, keys).try_get_matches_from(args)?;
        Self::of_matches(keys, &matches)
    }

    /// Reads arguments parsed with [`with_keys`], variables, and the file that they name.
    ///
    /// # Errors
    /// [`ProgramError::Usage`].
    pub fn of_matches(keys: &'static [Key], matches: &ArgMatches) -> Result<Self, ProgramError> {
        let unknown = unknown_variables(keys, std::env::vars_os().map(|(name, _)| name));
        if !unknown.is_empty() {
            // A container platform injects such names for a service that is called like us.
            let names = unknown.join(", ");
            output::complain("chatchat", &format_args!("no setting, ignored: {names}"));
        }
        let file = match matches.get_one::<String>("config") {
            Some(path) => read_file(Path::new(path))?,
            None => Table::new(),
        };
        let mut given = Vec::new();
        for (name, _) in all_keys(keys) {
            let source = matches.value_source(&name);
            if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
                && let Some(text) = matches.get_one::<String>(&name)
            {
                given.push((name, text.clone()));
            }
        }
        let mut settings = Self::merge(keys, file, given)?;
        settings.check_only = matches.get_flag("check-config");
        Ok(settings)
    }

    /// Merges the texts of flags and variables over the file, and both over the defaults.
    fn merge(
        keys: &'static [Key],
        file: Table,
        given: Vec<(String, String)>,
    ) -> Result<Self, ProgramError> {
        let kinds: Vec<_> = all_keys(keys).collect();
        let mut all = file;
        for (name, text) in given {
            let kind =
                kinds.iter().find(|(key, _)| *key == name).map_or(ValueKind::Text, |key| key.1);
            all.insert(name.clone(), value_of(&name, kind, &text)?);
        }
        let (mut own, mut limits) = (Table::new(), Table::new());
        for (name, value) in all {
            if keys.iter().any(|key| key.name == name) {
                own.insert(name, value);
            } else if kinds.iter().any(|(key, _)| *key == name) {
                // Each alone first, so that an error can name the key.
                typed::<Config>(&Table::from_iter([(name.clone(), value.clone())]))
                    .map_err(|why| ProgramError::Usage(format!("{name}: {why}")))?;
                limits.insert(name, value);
            } else {
                return Err(unknown("key", &name));
            }
        }
        let config = typed::<Config>(&limits).map_err(ProgramError::Usage)?;
        config.validate().map_err(|e| ProgramError::Usage(e.to_string()))?;
        Ok(Self { keys, own, config, check_only: false })
    }

    /// Returns the program's own settings as their type.
    ///
    /// # Errors
    /// [`ProgramError::Usage`].
    pub fn own<T: DeserializeOwned>(&self) -> Result<T, ProgramError> {
        for (name, value) in &self.own {
            let Some(key) = self.keys.iter().find(|key| key.name == name) else { continue };
            let fits = match key.kind {
                ValueKind::Text | ValueKind::Secret | ValueKind::Url => value.is_str(),
                ValueKind::List => {
                    value.as_array().is_some_and(|list| list.iter().all(Value::is_str))
                }
                ValueKind::Count => value.is_integer(),
                ValueKind::Switch => value.is_bool(),
            };
            if !fits {
                return Err(ProgramError::Usage(format!("{name}: want {}", key.kind.wanted())));
            }
        }
        typed(&self.own).map_err(|why| {
            // Each alone, so that the error can name the key.
            let is_wrong = |(name, value): &(&String, &Value)| {
                typed::<T>(&Table::from_iter([((*name).clone(), (*value).clone())])).is_err()
            };
            ProgramError::Usage(match self.own.iter().find(is_wrong) {
                Some((name, _)) => format!("{name}: {why}"),
                None => why,
            })
        })
    }

    /// Returns the keys whose values differ in settings that were read later, `log` left out.
    #[must_use]
    pub fn changed(&self, later: &Self) -> Vec<String> {
        let all = |settings: &Self| {
            let mut all = Table::try_from(&settings.config).unwrap_or_default();
            all.extend(settings.own.clone());
            all.remove("log");
            all
        };
        let (ours, theirs) = (all(self), all(later));
        let mut names: Vec<_> = ours.keys().chain(theirs.keys()).cloned().collect();
        names.sort();
        names.dedup();
        names.retain(|name| ours.get(name) != theirs.get(name));
        names
    }

    /// Returns the text that `--check-config` prints: all settings as a file, without secrets.
    ///
    /// # Errors
    /// [`ProgramError::Failed`] when a value cannot be written as TOML.
    pub fn show(&self, own: &impl Serialize) -> Result<String, ProgramError> {
        let mut own = Table::try_from(own).map_err(|e| ProgramError::Failed(e.to_string()))?;
        for key in self.keys {
            let Some(value) = own.get_mut(key.name) else { continue };
            match (key.kind, &value) {
                (ValueKind::Secret, _) => *value = Value::from("(not shown)"),
                (ValueKind::Url, Value::String(url)) => *value = Value::from(masked(url)),
                _ => {}
            }
        }
        let bound = self.config.task_bound().as_secs_f64();
        Ok(format!("{}# task_bound = \"{bound}s\"\n", file_of(&own, &self.config)?))
    }
}

impl ValueKind {
    const fn wanted(self) -> &'static str {
        match self {
            Self::Text | Self::Secret | Self::Url => "a text",
            Self::List => "a list of texts",
            Self::Count => "a whole number",
            Self::Switch => "true or false",
        }
    }
}

/// Returns the text of a settings file: a program's own settings, then the limits.
///
/// # Errors
/// [`ProgramError::Failed`] when a value cannot be written as TOML.
pub fn file_of(own: &impl Serialize, config: &Config) -> Result<String, ProgramError> {
    let failed = |e: toml::ser::Error| ProgramError::Failed(e.to_string());
    let own = toml::to_string(own).map_err(failed)?;
    Ok(format!("{own}\n# Limits and time-outs.\n{}", toml::to_string(config).map_err(failed)?))
}

/// Adds the flags and variables of these keys, `--config` and `--check-config`.
#[must_use]
pub fn with_keys(command: Command, keys: &'static [Key]) -> Command {
    let flag = |name: String, kind: ValueKind| {
        let value = if kind == ValueKind::Count { "N" } else { "VALUE" };
        let arg = Arg::new(name.clone())
            .long(name.replace('_', "-"))
            .env(variable(&name))
            .value_name(value)
            .hide_env(true)
            .action(ArgAction::Set);
        if kind == ValueKind::Switch {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        } else {
            arg
        }
    };
    let own = keys.iter().map(|key| flag(key.name.to_owned(), key.kind).help(key.help));
    let limits = limits().map(|(name, value)| {
        let default = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let help = format!("[default: {default}]");
        flag(name, kind_of(&value)).help(help).help_heading("Limits and time-outs")
    });
    command
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(
            "Each flag is also a variable (--data-dir is CHATCHAT_DATA_DIR) and a key of the \
             TOML file (data_dir). A flag wins over a variable, a variable over the file.",
        )
        .arg(
            Arg::new("config")
                .long("config")
                .env(variable("config"))
                .hide_env(true)
                .value_name("FILE")
                .help("A TOML file of the keys below"),
        )
        .arg(
            Arg::new("check-config")
                .long("check-config")
                .action(ArgAction::SetTrue)
                .help("Show what all sources say together, and do nothing"),
        )
        .args(own)
        .args(limits)
}

/// Iterates over the keys of [`Config`] with their defaults.
fn limits() -> impl Iterator<Item = (String, Value)> {
    Table::try_from(Config::default()).expect("the defaults are plain values").into_iter()
}

fn kind_of(value: &Value) -> ValueKind {
    if value.is_integer() { ValueKind::Count } else { ValueKind::Text }
}

fn all_keys(keys: &'static [Key]) -> impl Iterator<Item = (String, ValueKind)> {
    let own = keys.iter().map(|key| (key.name.to_owned(), key.kind));
    own.chain(limits().map(|(name, value)| (name, kind_of(&value))))
}

fn variable(name: &str) -> String {
    format!("{VARIABLE}{}", name.to_uppercase())
}

fn value_of(name: &str, kind: ValueKind, text: &str) -> Result<Value, ProgramError> {
    let wrong = || ProgramError::Usage(format!("{name}: {text:?} is not {}", kind.wanted()));
    Ok(match kind {
        ValueKind::Text | ValueKind::Secret | ValueKind::Url => Value::from(text),
        ValueKind::List => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Value::Array(parts.map(Value::from).collect())
        }
        ValueKind::Count => Value::from(text.parse::<i64>().map_err(|_| wrong())?),
        ValueKind::Switch => Value::from(text.parse::<bool>().map_err(|_| wrong())?),
    })
}

fn unknown(what: &str, name: &str) -> ProgramError {
    ProgramError::Usage(format!("unknown {what} {name}; --help lists all that there are"))
}

/// Returns the variables that begin like settings and are none, in order.
fn unknown_variables(keys: &'static [Key], names: impl Iterator<Item = OsString>) -> Vec<String> {
    let is_unknown = |name: &String| {
        let Some(rest) = name.strip_prefix(VARIABLE) else { return false };
        let key = rest.to_lowercase();
        let is_key = key == "config" || all_keys(keys).any(|known| known.0 == key);
        !OF_OTHERS.contains(&name.as_str()) && (variable(&key) != *name || !is_key)
    };
    let mut unknown: Vec<_> =
        names.filter_map(|name| name.into_string().ok()).filter(is_unknown).collect();
    unknown.sort();
    unknown
}

fn read_file(path: &Path) -> Result<Table, ProgramError> {
    const LEN_MAX: usize = 1024 * 1024;
    let refuse = |why: String| ProgramError::Usage(format!("the file {}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|e| {
        refuse(match e.kind() {
            ErrorKind::NotFound => "is not there; name another with --config".to_owned(),
            _ => e.to_string(),
        })
    })?;
    if text.len() > LEN_MAX {
        return Err(refuse("is over 1 MiB".to_owned()));
    }
    text.parse::<Table>().map_err(|e| {
        let line = e.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        refuse(format!("line {line}: {}", e.message()))
    })
}

fn typed<T: DeserializeOwned>(table: &Table) -> Result<T, String> {
    table.clone().try_into().map_err(|e: toml::de::Error| e.message().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;
    use crate::env::real::TempDir;

    const KEYS: &[Key] = &[
        Key { name: "name", kind: ValueKind::Text, help: "Its name" },
        Key { name: "masters", kind: ValueKind::List, help: "Where the masters are" },
        Key { name: "token", kind: ValueKind::Secret, help: "Lets it in" },
        Key { name: "store", kind: ValueKind::Url, help: "Where it writes" },
        Key { name: "port", kind: ValueKind::Count, help: "Where it listens" },
        Key { name: "restart", kind: ValueKind::Switch, help: "Again and again" },
    ];

    #[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(default)]
    struct Own {
        name: String,
        masters: Vec<String>,
        token: Option<String>,
        store: String,
        port: u16,
        restart: bool,
    }

    fn read(file: &str, args: &[&str]) -> Result<(Own, Settings), ProgramError> {
        let temp = TempDir::new().expect("a directory");
        let path = temp.path().join("node.toml");
        fs::write(&path, file).expect("written");
        let mut all = vec!["program".into(), "--config".into(), path.into_os_string()];
        all.extend(args.iter().map(OsString::from));
        let settings = Settings::read(Command::new("program"), KEYS, all)?;
        Ok((settings.own()?, settings))
    }

    fn refused(file: &str, args: &[&str]) -> String {
        let refused = read(file, args).expect_err("refused");
        let text = refused.to_string();
        match text.split_once("node.toml: ") {
            Some((_, why)) => why.to_owned(),
            None => text,
        }
    }

    #[test]
    fn flag_wins_over_the_file_and_each_key_has_its_type() {
        let file = "name = \"m\"\nmasters = [\"a:1\"]\nport = 7\nlease_ttl = \"2.5s\"";
        let (own, settings) =
            read(file, &["--masters=b:1, c:2", "--restart", "--queue-tasks-max=9"])
                .expect("all is well");
        let want = Own {
            name: "m".to_owned(),
            masters: vec!["b:1".to_owned(), "c:2".to_owned()],
            token: None,
            store: String::new(),
            port: 7,
            restart: true,
        };
        assert_eq!(own, want);
        assert_eq!(settings.config.lease_ttl, Duration::from_millis(2500));
        assert_eq!(settings.config.queue_tasks_max, 9);
        assert_eq!(settings.config.attempts_max, Config::default().attempts_max);
    }

    #[test]
    fn wrong_setting_is_named_in_one_line() {
        let cases = [
            ("lease_tll = \"3s\"", &[][..]),
            ("lease_ttl = \"3 days\"", &[]),
            ("lease_ttl = 3", &[]),
            ("port = \"x\"", &[]),
            ("name = \"a\"\nname = \"b\"", &[]),
            ("", &["--port=x"]),
            ("", &["--restart=maybe"]),
            ("", &["--attempts-max=5"]),
        ];
        let lines: Vec<_> = cases.map(|(file, args)| refused(file, args)).into();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        unknown key lease_tll; --help lists all that there are
        lease_ttl: "3 days" is not a duration such as 250ms, 10s or 5min
        lease_ttl: invalid type: integer `3`, expected a string
        port: want a whole number
        line 2: duplicate key
        port: "x" is not a whole number
        restart: "maybe" is not true or false
        task_bound (10.5s) must be below request_timeout (10s)
        "#);
    }

    #[test]
    fn unknown_variable_is_named_and_ends_nothing() {
        let check = |name: &str| unknown_variables(KEYS, [OsString::from(name)].into_iter());
        for good in [
            "CHATCHAT_PORT",
            "CHATCHAT_LEASE_TTL",
            "CHATCHAT_CONFIG",
            "CHATCHAT_REQUIRE_ALL",
            "CHATCHAT_MASTER",
            "CHATCHAT_CACERT",
            "HOME",
        ] {
            assert!(check(good).is_empty(), "{good}");
        }
        for bad in ["CHATCHAT_PROT", "CHATCHAT_port", "CHATCHAT_"] {
            assert_eq!(check(bad), [bad]);
        }
    }

    #[test]
    fn settings_read_again_name_what_changed() {
        let read = |file: &str| read(file, &[]).expect("all is well").1;
        let before = read("name = \"m\"\nlease_ttl = \"3s\"");
        assert_eq!(before.changed(&before), [""; 0]);
        let after = read("port = 7\nlease_ttl = \"2.5s\"");
        assert_eq!(before.changed(&after), ["lease_ttl", "name", "port"]);
    }

    #[test]
    fn shown_settings_leave_out_secrets_and_read_back() {
        let store = "--store=postgres://ada:s3cret@h/db";
        let (own, settings) =
            read("token = \"s3cret\"\nname = \"m\"", &[store]).expect("all is well");
        let shown = settings.show(&own).expect("written");
        assert!(!shown.contains("s3cret") && shown.contains("(not shown)"), "{shown}");
        assert!(shown.contains("postgres://ada:***@h/db"), "{shown}");
        assert!(shown.ends_with("# task_bound = \"9.4s\"\n"), "{shown}");
        let again =
            Settings::merge(KEYS, shown.parse().expect("TOML"), Vec::new()).expect("reads back");
        assert_eq!(again.config, settings.config);
    }
}
