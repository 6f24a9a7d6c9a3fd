//! `nearcast purge`: ends what edges have stored, by URL, prefix, tag, or all of it.

use crate::edges::{Edges, all_well};
use anyhow::{Result, bail};
use clap::Args;
use model::admin::{PurgeDone, PurgeRequest};
use serde_json::{Value, json};
use service::print;

/// Flags of `nearcast purge`.
#[derive(Debug, Args)]
pub struct Settings {
    #[command(flatten)]
    what: What,
    /// Revalidate before the next use, rather than forget
    #[arg(long)]
    soft: bool,
    /// On this site alone
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Why, for the edges' list of purges
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    edges: Edges,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// One URL, as clients ask for it, with all its variants
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// Every URL that begins so, as http://films.example/season-1/
    #[arg(long, value_name = "URL")]
    prefix: Option<String>,
    /// All that carry this surrogate key or cache group
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

impl What {
    /// A star stands for itself in a URL: who means all that begin so would be told that it is
    /// purged, and nothing would be.
    fn starred_url(&self) -> Option<String> {
        let url = self.url.as_deref()?;
        let beginning = url.strip_suffix('*')?;
        // The beginning of a query is none of what is stored on most sites.
        let beginning = beginning.split_once('?').map_or(beginning, |(path, _)| path);
        let is_some = beginning.split_once("://").is_some_and(|(_, rest)| !rest.is_empty());
        Some(match is_some {
            true => format!(
                "{url:?}: a * stands for itself in a URL: expected --prefix {beginning:?} for every \
                 URL that begins so, or --prefix {url:?} for one that does end in a *"
            ),
            false => format!(
                "{url:?}: expected a URL, --prefix with the beginning of some, as \
                 http://films.example/season-1/, or --all"
            ),
        })
    }

    fn starred_prefix(&self) -> Option<String> {
        let prefix = self.prefix.as_deref()?;
        let beginning = prefix.strip_suffix('*')?;
        Some(format!(
            "note: --prefix {prefix:?} ends only URLs that have this * in them; all that begin so are \
             --prefix {beginning:?}"
        ))
    }
}

/// Purges, and prints each edge's acknowledgement: once it is there, the purge is on that
/// edge's disk and in force.
///
/// # Errors
/// Names each edge that has not acknowledged.
pub async fn run(settings: Settings) -> Result<()> {
    if let Some(mistake) = settings.what.starred_url() {
        bail!(mistake);
    }
    if let Some(note) = settings.what.starred_prefix() {
        eprintln!("{note}");
    }
    let What { url, prefix, tag, all } = settings.what;
    let (site, soft, reason) = (settings.site, settings.soft, settings.reason);
    // `sudo` hides who it was.
    let by = ["SUDO_USER", "USER"].into_iter().find_map(|name| std::env::var(name).ok());
    let request = PurgeRequest { url, prefix, tag, all, site, soft, by, reason };
    let said = settings
        .edges
        .ask(async |client, admin| {
            client.post_json::<_, PurgeDone>(&format!("{admin}/v1/purge"), &request).await
        })
        .await?;
    if settings.edges.json {
        let told = said.iter().map(|said| match &said.answer {
            Ok(done) => json!({ "admin": said.admin, "number": done.number }),
            Err(error) => json!({ "admin": said.admin, "error": error }),
        });
        print(format_args!("{}\n", json!({ "edges": told.collect::<Vec<Value>>() })))?;
    } else {
        let mut done =
            said.iter().filter_map(|said| Some((&said.admin, said.answer.as_ref().ok()?)));
        done.try_for_each(|(admin, done)| {
            print(format_args!("{admin}: purged, as number {}\n", done.number))
        })?;
    }
    all_well(&said)
}
