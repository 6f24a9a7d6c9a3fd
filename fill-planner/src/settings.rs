//! Settings of `nearcast plan`: as given (flags, environment, the file's `[plan]`), as checked.

use crate::{Command, Run};
use serde::Deserialize;
use service::config::ConfigError;
use service::value::Span;
use std::path::PathBuf;
use std::time::Duration;

/// As given. The command stands on the command line alone.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Settings {
    /// What to do
    #[command(subcommand)]
    #[serde(skip)]
    pub command: Option<Command>,
    /// The control plane, as http://127.0.0.1:7080
    #[arg(long, global = true, env = "NEARCAST_PLAN_CONTROL_PLANE", value_name = "URL")]
    pub control_plane: Option<String>,
    /// File with the operator's credential
    #[arg(long, global = true, env = "NEARCAST_PLAN_CREDENTIAL_FILE", value_name = "FILE")]
    pub credential_file: Option<PathBuf>,
    /// How long to wait for each answer [default: 30s]
    #[arg(long, global = true, env = "NEARCAST_PLAN_TIMEOUT", value_name = "SPAN")]
    pub timeout: Option<Span>,
}

impl Settings {
    /// These (flags and environment) over those of a file.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            command: self.command,
            control_plane: self.control_plane.or(file.control_plane),
            credential_file: self.credential_file.or(file.credential_file),
            timeout: self.timeout.or(file.timeout),
        }
    }
}

/// As checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) control_plane: String,
    pub(crate) credential_file: PathBuf,
    pub(crate) timeout: Duration,
    pub(crate) run: Run,
}

/// Cron can wait, but not for ever: the input of a large catalog takes seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Config {
    /// Checks settings.
    ///
    /// # Errors
    /// [`ConfigError`] names the key and what is expected.
    pub fn check(settings: Settings) -> Result<Self, ConfigError> {
        let missing = |key: &str, expected: &str| ConfigError::missing(key, expected);
        let expected = "the control plane's URL, as http://127.0.0.1:7080";
        let key = "plan.control-plane";
        let url = settings.control_plane.ok_or_else(|| missing(key, expected))?;
        let base = url.trim_end_matches('/');
        let parsed = base.parse::<http::Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.path() == "/"
                && uri.query().is_none()
        });
        if parsed.is_none() {
            return Err(ConfigError::value(key, &url, expected));
        }
        Ok(Self {
            control_plane: base.to_owned(),
            credential_file: settings.credential_file.ok_or_else(|| {
                missing("plan.credential-file", "the file with the operator's credential")
            })?,
            timeout: settings.timeout.map_or(TIMEOUT, |span| span.0),
            run: settings.command.map(|Command::Run(run)| run).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn flags_stand_behind_the_subcommand() {
        use clap::Parser;
        let words =
            "plan run --date 2026-11-21 --control-plane http://a --credential-file f --json";
        let cli = Cli::try_parse_from(words.split(' ')).unwrap();
        let config = Config::check(cli.settings.over(Settings::default())).unwrap();
        assert_eq!((config.run.date.as_deref(), config.run.json), (Some("2026-11-21"), true));
        assert!(Cli::try_parse_from(["plan"]).is_err());
        assert!(Cli::try_parse_from(["plan", "--control-plane", "http://a"]).is_err());
    }

    #[test]
    fn mistakes_are_named() {
        let file = || Settings { credential_file: Some("key".into()), ..Settings::default() };
        let with = |url: &str| Settings { control_plane: Some(url.into()), ..file() };
        let errors: Vec<String> = [
            file(),
            with("127.0.0.1:7080"),
            with("http://a/b"),
            Settings { credential_file: None, ..with("http://a") },
        ]
        .into_iter()
        .map(|settings| Config::check(settings).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
        assert_eq!(Config::check(with("http://a:7080/")).unwrap().control_plane, "http://a:7080");
    }
}
