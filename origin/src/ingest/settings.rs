//! Flags of `nearcast ingest`, and the `[ingest]` table.

use clap::Args;
use model::{IdError, TitleId};
use serde::Deserialize;
use service::config::ConfigError;
use service::value::Span;
use std::path::PathBuf;

/// As given: flags and environment, or the file's table.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Media files: MP4 (one rendition each, or several tracks in one) and WebVTT (.vtt)
    #[serde(skip)]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where to: dir:PATH, or s3://bucket/prefix (with the usual AWS variables)
    #[arg(long, env = "NEARCAST_INGEST_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// The title's id: a-z, 0-9 and -
    #[serde(skip)]
    #[arg(long, value_name = "ID")]
    pub title: Option<String>,
    /// The title's name for people [default: its id]
    #[serde(skip)]
    #[arg(long)]
    pub name: Option<String>,
    /// Segment length to aim at; cuts are at key frames [default: 4s]
    #[arg(long, env = "NEARCAST_INGEST_SEGMENT", value_name = "SPAN")]
    pub segment: Option<Span>,
    /// Let ffmpeg make H.264 renditions of at most 1080 lines from one SDR file first
    #[serde(skip)]
    #[arg(long)]
    pub ladder: bool,
    /// Read files that the store holds already, and upload again what is damaged
    #[serde(skip)]
    #[arg(long)]
    pub verify: bool,
    /// Print a report as JSON
    #[serde(skip)]
    #[arg(long)]
    pub json: bool,
    /// Folder to package in; needs room for the whole title [default: below the temporary folder]
    #[arg(long, env = "NEARCAST_INGEST_WORK_DIR", value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
}

impl Settings {
    /// These over those of the file.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        Self {
            store: self.store.or(file.store),
            segment: self.segment.or(file.segment),
            work_dir: self.work_dir.or(file.work_dir),
            ..self
        }
    }
}

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// URL of the store.
    pub store: String,
    /// The title.
    pub title: TitleId,
    /// Its name for people.
    pub name: String,
    /// Segment length to aim at, milliseconds.
    pub segment_target_ms: u32,
    /// Whether ffmpeg makes the renditions.
    pub ladder: bool,
    /// Whether to read what the store holds already.
    pub verify: bool,
    /// Whether to print JSON.
    pub json: bool,
    /// Folder to package in.
    pub work_dir: Option<PathBuf>,
    /// The sources.
    pub files: Vec<PathBuf>,
}

/// Shorter segments cost more requests than they save delay, longer ones start slowly.
const SEGMENT_MS: std::ops::RangeInclusive<u128> = 500..=20_000;
/// Names longer than this are for no list.
const NAME_CHARS_MAX: usize = 200;

impl Config {
    /// Checks them.
    ///
    /// # Errors
    /// Names the key, what was given and what is allowed.
    pub fn check(settings: Settings) -> Result<Self, ConfigError> {
        let segment_target_ms = Self::check_table(&settings)?;
        let expected = "dir:PATH or s3://bucket/prefix";
        let store = settings
            .store
            .ok_or_else(|| ConfigError::missing("ingest.store (--store)", expected))?;
        let title = settings
            .title
            .ok_or_else(|| ConfigError::missing("--title", "an id of a-z, 0-9 and -"))?;
        let title: TitleId = title
            .parse()
            .map_err(|error: IdError| ConfigError::value("--title", &title, error.expected()))?;
        let name = settings.name.unwrap_or_else(|| title.to_string());
        if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX {
            let expected = format!("1 to {NAME_CHARS_MAX} characters");
            return Err(ConfigError::value("--name", name, expected));
        }
        if settings.files.is_empty() {
            return Err(ConfigError::missing("FILE", "at least one .mp4 file"));
        }
        Ok(Self {
            store,
            title,
            name,
            segment_target_ms,
            ladder: settings.ladder,
            verify: settings.verify,
            json: settings.json,
            work_dir: settings.work_dir,
            files: settings.files,
        })
    }

    /// Checks what may stand in the file's table, and returns the segment length to aim at in
    /// milliseconds.
    ///
    /// # Errors
    /// Names the key, what was given and what is allowed.
    pub fn check_table(settings: &Settings) -> Result<u32, ConfigError> {
        if let Some(store) = settings.store.as_ref().filter(|store| store.starts_with("mem:")) {
            // It would end with this process, and the title with it.
            let expected = "dir:PATH or s3://bucket/prefix";
            return Err(ConfigError::value("ingest.store (--store)", store, expected));
        }
        let segment = settings.segment.map_or(4000, |span| span.0.as_millis());
        if !SEGMENT_MS.contains(&segment) {
            let given = format!("{segment}ms");
            return Err(ConfigError::value("ingest.segment (--segment)", given, "500ms to 20s"));
        }
        Ok(u32::try_from(segment).expect("within the range just checked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_named() {
        let good = || Settings {
            store: Some("dir:store".into()),
            title: Some("film".into()),
            files: vec!["a.mp4".into()],
            ..Settings::default()
        };
        let error = |change: fn(&mut Settings)| {
            let mut settings = good();
            change(&mut settings);
            Config::check(settings).unwrap_err().to_string()
        };
        assert!(Config::check(good()).is_ok());
        insta::assert_snapshot!(
            [
                error(|s| s.store = None),
                error(|s| s.store = Some("mem:".into())),
                error(|s| s.title = None),
                error(|s| s.title = Some("Big Film".into())),
                error(|s| s.name = Some(String::new())),
                error(|s| s.segment = Some("10ms".parse().unwrap())),
                error(|s| s.files.clear()),
            ]
            .join("\n")
        );
    }
}
