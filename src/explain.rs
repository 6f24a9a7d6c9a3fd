//! `nearcast explain`: asks edges why they answer a URL as they do.

use crate::edges::{Edges, all_well};
use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use model::admin::{ChunkRun, Explanation, TitleState, VariantState};
use serde_json::{Value, json};
use service::print;
use std::fmt::{self, Write as _};

/// Runs of chunks that are shown; the rest is counted.
const RUNS_SHOWN_MAX: usize = 12;
const CENTURY_MS: i64 = 36_525 * 86_400_000;

/// Flags of `nearcast explain`.
#[derive(Debug, Args)]
pub struct Settings {
    /// The URL, as clients ask for it
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    edges: Edges,
}

/// Asks, and prints what each edge says.
///
/// # Errors
/// Names each edge that has not answered.
pub async fn run(settings: Settings) -> Result<()> {
    let said = settings
        .edges
        .ask(async |client, admin| {
            let asked: String = form_encoded(&settings.url);
            client.get_json::<Explanation>(&format!("{admin}/v1/explain?url={asked}")).await
        })
        .await?;
    if settings.edges.json {
        let told = said.iter().map(|said| match &said.answer {
            Ok(explanation) => json!({ "admin": said.admin, "explanation": explanation }),
            Err(error) => json!({ "admin": said.admin, "error": error }),
        });
        print(format_args!("{}\n", json!({ "edges": told.collect::<Vec<Value>>() })))?;
    } else {
        let mut told =
            said.iter().filter_map(|said| Some((&said.admin, said.answer.as_ref().ok()?)));
        told.try_for_each(|(admin, shown)| print(format_args!("{admin}\n{}", Shown(shown))))?;
    }
    all_well(&said)
}

/// As the value of a query parameter.
fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// For people.
struct Shown<'a>(&'a Explanation);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { site, url, key, number, variants, .. } = self.0;
        writeln!(f, "  {url}")?;
        if let Some(state) = &self.0.title {
            return title(f, state);
        }
        writeln!(f, "  site {site}, key {key}, purge log at {number}")?;
        if self.0.drops_cookies {
            writeln!(f, "  cookies are dropped, by the site's settings")?;
        }
        if let Some(why) = &self.0.not_stored {
            writeln!(f, "  an answer was not stored: {why}")?;
        }
        if let Some(last_ms) = self.0.others_newer_than_ms {
            write!(f, "  asks other nodes for nothing from before {}", moment(last_ms))?;
            match self.0.others_hard_ms {
                Some(hard_ms) => writeln!(f, ", nor bytes from before {}", moment(hard_ms))?,
                None => writeln!(f)?,
            }
        }
        match variants.len() {
            0 => writeln!(f, "  nothing is stored"),
            1 => variant(f, &variants[0]),
            count => {
                writeln!(f, "  {count} variants, newest first")?;
                variants.iter().try_for_each(|state| variant(f, state))
            }
        }
    }
}

fn title(f: &mut fmt::Formatter<'_>, state: &TitleState) -> fmt::Result {
    let TitleState { title, version, index, media } = state;
    writeln!(f, "  title {title}, version {version}: never stale, not purged")?;
    writeln!(f, "    index: {index}")?;
    let Some(media) = media else { return writeln!(f, "    made from the index") };
    let (first, last) = (media.first, (media.first + media.count).saturating_sub(1));
    writeln!(f, "    bytes {first}-{last} of a file of {}, body {}", media.bytes, media.body)?;
    writeln!(f, "    chunks: {}", chunks(&media.chunks))
}

/// The words for what a purge has done to a variant.
const SOFT: &str = "soft";
const HARD: &str = "hard";

fn variant(f: &mut fmt::Formatter<'_>, state: &VariantState) -> fmt::Result {
    let validator = state.validator.as_deref().unwrap_or("no strong validator");
    writeln!(f, "  {}, {} bytes, {validator}", state.status, state.bytes)?;
    for (name, value) in &state.selecting {
        writeln!(f, "    for {name}: {}", value.as_deref().unwrap_or("(absent)"))?;
    }
    writeln!(f, "    received {}, body {}", moment(state.received_ms), state.body)?;
    if let Some(fetched_ms) = state.fetched_ms {
        let (asked, fetched) = (moment(state.asked_ms), moment(fetched_ms));
        writeln!(f, "    the origin was asked about it at {asked}, for its bytes at {fetched}")?;
    }
    writeln!(f, "    {}", freshness(state))?;
    if state.purge != HARD {
        writeln!(f, "    {}", stale(state))?;
    }
    writeln!(f, "    purges: {} (epoch {})", purged(&state.purge), state.epoch)?;
    if !state.tags.is_empty() {
        writeln!(f, "    tags: {}", state.tags.join(", "))?;
    }
    writeln!(f, "    chunks: {}", chunks(&state.chunks))
}

fn moment(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).map_or_else(|_| "?".to_owned(), |at| at.to_string())
}

fn freshness(state: &VariantState) -> String {
    let mut of = format!("age {} of {}", span(state.age_ms), span(state.lifetime_ms));
    if state.waived_ms > 0 {
        of += &format!(", not counting the {} that the origin took", span(state.waived_ms));
    }
    let from = &state.lifetime_from;
    match (&*state.purge, state.no_cache, state.fresh_for_ms) {
        (HARD, ..) => "ended by a purge: never served again".to_owned(),
        (_, true, _) => "asks the origin before every use (no-cache)".to_owned(),
        (SOFT, _, left) if left > 0 => {
            let since = span(state.soft_purged_for_ms.unwrap_or(0));
            format!("stale since {since} by a soft purge ({of}, by {from})")
        }
        (_, _, left) if left > 0 => format!("fresh for {} ({of}, by {from})", span(left)),
        (.., left) => format!("stale since {} ({of}, by {from})", span(left.saturating_neg())),
    }
}

fn stale(state: &VariantState) -> String {
    if state.must_revalidate || state.no_cache {
        return "never served stale".to_owned();
    }
    let (revalidated, failing) = (span(state.while_revalidate_ms), span(state.if_error_ms));
    format!("stale for {revalidated} while it is revalidated, {failing} when the origin fails")
}

fn purged(verdict: &str) -> &str {
    match verdict {
        SOFT => "stale",
        HARD => "ended",
        other => other,
    }
}

fn chunks(runs: &[ChunkRun]) -> String {
    let shown = runs.iter().take(RUNS_SHOWN_MAX).map(|run| {
        let place = run.place.as_str();
        match run.first == run.last {
            true => format!("{} {place}", run.first),
            false => format!("{}-{} {place}", run.first, run.last),
        }
    });
    let mut shown: Vec<String> = shown.collect();
    match runs.len().checked_sub(RUNS_SHOWN_MAX) {
        None | Some(0) => {}
        Some(more) => shown.push(format!("and {more} more runs")),
    }
    if shown.is_empty() { "none: it is empty".to_owned() } else { shown.join(", ") }
}

/// Milliseconds, as people say them.
fn span(ms: i64) -> String {
    match ms {
        ..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        172_800_000..CENTURY_MS => format!("{} days", ms / 86_400_000),
        // An age that makes no sense, as of `Age: -1`, is as old as can be.
        _ => "more than 100 years".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::admin::ChunkPlace;

    #[test]
    fn an_explanation_for_people() {
        let run = |first, last, place| ChunkRun { first, last, place };
        let state = VariantState {
            selecting: vec![("accept-encoding".into(), Some("gzip".into()))],
            status: 200,
            validator: Some("\"v1\"".into()),
            received_ms: 1_795_000_000_000,
            asked_ms: 1_795_000_000_000,
            fetched_ms: Some(1_794_999_999_000),
            age_ms: 5_000,
            waived_ms: 0,
            lifetime_ms: 60_000,
            fresh_for_ms: 55_000,
            lifetime_from: "max-age".into(),
            while_revalidate_ms: 30_000,
            if_error_ms: 3_600_000,
            must_revalidate: false,
            no_cache: false,
            immutable: false,
            tags: vec!["film".into(), "season-1".into()],
            epoch: 41,
            purge: "valid".into(),
            soft_purged_for_ms: None,
            body: "00ff".into(),
            bytes: 5_242_880,
            chunks: vec![run(0, 3, ChunkPlace::Memory), run(4, 4, ChunkPlace::Absent)],
        };
        let stale = VariantState {
            selecting: vec![("accept-encoding".into(), None)],
            validator: None,
            fetched_ms: None,
            fresh_for_ms: -200_000,
            must_revalidate: true,
            purge: "soft".into(),
            chunks: (0..20).map(|number| run(number, number, ChunkPlace::Disk)).collect(),
            tags: Vec::new(),
            ..state.clone()
        };
        let explanation = Explanation {
            site: "films".into(),
            url: "films.example/a.mp4".into(),
            key: "0a0b".into(),
            number: 42,
            now_ms: 1_795_000_005_000,
            others_newer_than_ms: Some(1_794_999_998_500),
            others_hard_ms: Some(1_794_999_998_000),
            variants: vec![state, stale],
            not_stored: Some("set-cookie".into()),
            drops_cookies: true,
            title: None,
        };
        let shown = Shown(&explanation).to_string();
        assert_eq!(
            shown,
            "  films.example/a.mp4
  site films, key 0a0b, purge log at 42
  cookies are dropped, by the site's settings
  an answer was not stored: set-cookie
  asks other nodes for nothing from before 2026-11-18T11:06:38.5Z, nor bytes from before 2026-11-18T11:06:38Z
  2 variants, newest first
  200, 5242880 bytes, \"v1\"
    for accept-encoding: gzip
    received 2026-11-18T11:06:40Z, body 00ff
    the origin was asked about it at 2026-11-18T11:06:40Z, for its bytes at 2026-11-18T11:06:39Z
    fresh for 55 s (age 5 s of 60 s, by max-age)
    stale for 30 s while it is revalidated, 60 min when the origin fails
    purges: valid (epoch 41)
    tags: film, season-1
    chunks: 0-3 memory, 4 absent
  200, 5242880 bytes, no strong validator
    for accept-encoding: (absent)
    received 2026-11-18T11:06:40Z, body 00ff
    stale since 3 min (age 5 s of 60 s, by max-age)
    never served stale
    purges: stale (epoch 41)
    chunks: 0 disk, 1 disk, 2 disk, 3 disk, 4 disk, 5 disk, 6 disk, 7 disk, 8 disk, 9 disk, \
10 disk, 11 disk, and 8 more runs
"
        );
    }

    /// What was purged is not told to be fresh, nor what a hard purge ended to stand in for an
    /// origin that fails.
    #[test]
    fn a_purged_variant_is_told_as_such() {
        let shown = |purge: &str| {
            let state = r#"{"selecting":[],"status":200,"validator":null,"received_ms":0,
                "age_ms":5000,"lifetime_ms":60000,"fresh_for_ms":55000,"lifetime_from":"max-age",
                "while_revalidate_ms":0,"if_error_ms":3600000,"must_revalidate":false,
                "no_cache":false,"immutable":false,"tags":[],"epoch":41,"purge":"PURGE",
                "soft_purged_for_ms":3000,
                "body":"00ff","bytes":0,"chunks":[]}"#;
            let state = serde_json::from_str(&state.replace("PURGE", purge)).unwrap();
            let explanation = Explanation {
                site: "films".into(),
                url: "films.example/a.mp4".into(),
                key: "0a0b".into(),
                number: 42,
                now_ms: 5_000,
                others_newer_than_ms: None,
                others_hard_ms: None,
                variants: vec![state],
                not_stored: None,
                drops_cookies: false,
                title: None,
            };
            Shown(&explanation).to_string()
        };
        let hard = shown(HARD);
        assert!(
            hard.contains("    ended by a purge: never served again\n    purges: ended "),
            "{hard}"
        );
        let soft = shown(SOFT);
        let wanted = "    stale since 3 s by a soft purge (age 5 s of 60 s, by max-age)\n    stale for 0 ms \
                      while it is revalidated, 60 min when the origin fails\n    purges: stale ";
        assert!(soft.contains(wanted), "{soft}");
    }

    #[test]
    fn a_url_survives_as_a_parameter() {
        assert_eq!(form_encoded("http://a/b?c=d&é"), "http%3A%2F%2Fa%2Fb%3Fc%3Dd%26%C3%A9");
    }
}
