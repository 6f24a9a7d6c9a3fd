//! Structured logs on standard error: for people on a terminal, JSON otherwise.

mod lines;

pub use lines::{Log, count_lost};

use clap::ValueEnum;
use lines::Lines;
use serde::Deserialize;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Checks a filter such as `info` or `warn,nearcast_edge=debug`.
///
/// # Errors
/// What is wrong with it, and what is allowed.
pub fn check(level: &str) -> Result<(), String> {
    filter(level).map(|_| ())
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    let expected = "expected error, warn, info, debug, trace, off, or target=level,...";
    // A bare word that is no level would be taken for a target, and silence all others.
    let is_level = |word: &str| word == "off" || word.parse::<tracing::Level>().is_ok();
    let bare = level.split(',').map(str::trim).find(|part| !part.contains('=') && !is_level(part));
    if let Some(word) = bare {
        return Err(format!("{word:?} is no level: {expected}"));
    }
    EnvFilter::try_new(level).map_err(|error| format!("{error}: {expected}"))
}

/// Starts logging. `level` is a filter as for [`check`]. Standard error may take no writes, or none
/// for now: what is not written is counted ([`count_lost`]), and nobody waits for it.
///
/// # Errors
/// What is wrong with `level`, or that there is no thread to be had.
pub fn start(format: Format, level: &str) -> Result<Log, String> {
    let filter = filter(level)?;
    let out = Lines::start(std::io::stderr()).map_err(|error| format!("no thread: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(out.clone());
    let human = match format {
        Format::Auto => std::io::stderr().is_terminal(),
        Format::Human => true,
        Format::Json => false,
    };
    if human {
        lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    } else {
        lines.json().flatten_event(true).init();
    }
    Ok(Log(out))
}
