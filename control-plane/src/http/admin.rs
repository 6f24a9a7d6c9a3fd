//! What the operator and the console call.

use super::input::{self, Body};
use super::{App, Fault};
use crate::accounts::{self, Window};
use crate::{clock, events};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use model::api::{Overview, TitleOverview};
use model::{EdgeId, TitleId};
use serde::Deserialize;
use std::collections::HashMap;

/// Windows of one title.
const WINDOWS_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountBody {
    active: bool,
}

pub(super) async fn put_account(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<AccountBody>,
) -> Result<StatusCode, Fault> {
    input::name("account", &id)?;
    accounts::put_account(&app.db, id, body.active).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileBody {
    account: String,
}

pub(super) async fn put_profile(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<ProfileBody>,
) -> Result<StatusCode, Fault> {
    input::name("profile", &id)?;
    input::name("account", &body.account)?;
    let account = body.account.clone();
    if accounts::put_profile(&app.db, id, body.account).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Fault::bad(format!("account: {account:?}: expected one that was put before")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowBody {
    country: String,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    until: Option<String>,
}

pub(super) async fn put_windows(
    State(app): State<App>,
    Path(title): Path<String>,
    Body(bodies): Body<Vec<WindowBody>>,
) -> Result<StatusCode, Fault> {
    let title: TitleId = input::id(&title)?;
    if bodies.len() > WINDOWS_MAX {
        return Err(Fault::bad(format!("expected at most {WINDOWS_MAX} windows")));
    }
    let windows = bodies.iter().enumerate().map(|(n, body)| window(n, body));
    let windows = windows.collect::<Result<Vec<Window>, Fault>>()?;
    accounts::put_windows(&app.db, title, windows).await?;
    app.catalog.windows_changed().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn window(n: usize, body: &WindowBody) -> Result<Window, Fault> {
    let country =
        match body.country.as_str() {
            "*" => None,
            code => Some(code.parse().map_err(|error| {
                Fault::bad(format!("[{n}].country: {error}, or * for everywhere"))
            })?),
        };
    let from = time(n, "from", body.from.as_deref())?;
    let until = time(n, "until", body.until.as_deref())?;
    if let (Some(from), Some(until)) = (from, until)
        && from >= until
    {
        return Err(Fault::bad(format!("[{n}].until: expected a time after from")));
    }
    Ok(Window { country, from_ms: from, until_ms: until })
}

/// Milliseconds since 1970 UTC; a time before that is as good as 1970.
fn time(n: usize, field: &str, text: Option<&str>) -> Result<Option<u64>, Fault> {
    let Some(text) = text else { return Ok(None) };
    let at: Timestamp = text.parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        Fault::bad(format!("[{n}].{field}: {shown:?}: expected a time, as 2026-01-01T00:00:00Z"))
    })?;
    Ok(Some(u64::try_from(at.as_millisecond()).unwrap_or(0)))
}

pub(super) async fn overview(State(app): State<App>) -> Result<Json<Overview>, Fault> {
    let now_ms = app.clock.now_ms();
    let snapshot = app.snapshot()?;
    let today = clock::day(now_ms);
    let (profiles, demand) = app
        .db
        .read(move |connection| {
            Ok((accounts::profiles(connection)?, events::demand(connection, &today)?))
        })
        .await?;
    let plays: HashMap<TitleId, u64> =
        demand.into_iter().map(|demand| (demand.title, demand.plays)).collect();
    let records = snapshot.titles.values().map(|title| &title.record);
    let mut held_by: HashMap<TitleId, Vec<EdgeId>> = HashMap::new();
    for (id, _, titles) in app.fleet.budgets(records.clone()) {
        for title in titles {
            held_by.entry(title).or_default().push(id.clone());
        }
    }
    let edges = app.fleet.overview(now_ms, |title, version, file| {
        let record = snapshot.titles.get(title).map(|title| &title.record);
        let files = record.filter(|record| record.version == *version).map(|record| &record.files);
        let file = files.and_then(|files| files.iter().find(|held| held.name == file));
        file.map_or(0, |file| file.bytes)
    });
    let mut titles: Vec<TitleOverview> = records
        .map(|record| TitleOverview {
            held_by: held_by.remove(&record.title).unwrap_or_default(),
            plays_today: plays.get(&record.title).copied().unwrap_or(0),
            record: record.clone(),
        })
        .collect();
    titles
        .sort_by(|a, b| (&a.record.name, &a.record.title).cmp(&(&b.record.name, &b.record.title)));
    Ok(Json(Overview { titles, edges, plan: app.plans.run(), profiles }))
}
