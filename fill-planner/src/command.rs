//! `nearcast plan run`: ask, plan, show, publish.

use crate::{Config, Error, Planned, plan, show};
use model::api::{PlanPublished, PlannerInput};
use serde::Serialize;
use service::Shutdown;
use service::client::{self, Client};
use std::io::Write;
use std::path::Path;

/// What `nearcast plan` can do.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Plan a day from the demand of the day before, show the plan, and publish it
    #[command(after_help = "Examples:
  nearcast plan run --control-plane http://127.0.0.1:7080 --credential-file /etc/nearcast/operator
  nearcast plan run --date 2026-11-21 --dry-run ...")]
    Run(Run),
}

/// `nearcast plan run`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Run {
    /// The day to plan for, as 2026-11-21 [default: today, UTC]
    #[arg(long, value_name = "DAY")]
    pub date: Option<String>,
    /// Show the plan, publish nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    date: &'a str,
    /// None: a dry run.
    number: Option<u64>,
    edges: &'a [crate::EdgePlan],
}

/// Runs the command, printing to standard output.
///
/// # Errors
/// Any [`Error`].
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    let mut text = Vec::new();
    let outcome = tokio::select! {
        outcome = run_to(&config, &mut text) => outcome,
        () = shutdown.requested() => Err(Error::Stopped),
    };
    // A plan that could not be published is shown all the same.
    std::io::stdout().lock().write_all(&text)?;
    outcome.map(drop)
}

/// Runs the command, printing to `out`. Returns the number of the published run; none if it
/// was a dry one.
///
/// # Errors
/// Any [`Error`].
pub async fn run_to(config: &Config, out: &mut (dyn Write + Send)) -> Result<Option<u64>, Error> {
    let command = &config.run;
    let date = day(command.date.as_deref())?;
    let file = &config.credential_file;
    let client = Client::new(config.timeout, Some(credential(file)?), None)?;
    let failed = |error| refused(error, file);
    let url = format!("{}/v1/planner/input?date={date}", config.control_plane);
    let input: PlannerInput = client.get_json(&url).await.map_err(failed)?;
    let planned = plan(&input);
    if !command.json {
        show::tables(&planned, out)?;
    }
    if planned.edges.is_empty() {
        return Err(Error::NoEdges);
    }
    let number = match command.dry_run {
        true => None,
        false => Some(publish(config, &client, &planned).await.map_err(failed)?),
    };
    match (command.json, number) {
        (true, _) => json(&planned, number, out)?,
        (false, Some(number)) => writeln!(out, "\nPublished as plan {number}.")?,
        (false, None) => writeln!(out, "\nA dry run: nothing was published.")?,
    }
    Ok(number)
}

async fn publish(
    config: &Config,
    client: &Client,
    planned: &Planned,
) -> Result<u64, client::Error> {
    let url = format!("{}/v1/plans", config.control_plane);
    let published: PlanPublished = client.post_json(&url, &planned.run).await?;
    tracing::info!(number = published.number, date = planned.run.date, "plan published");
    Ok(published.number)
}

fn json(planned: &Planned, number: Option<u64>, out: &mut dyn Write) -> Result<(), Error> {
    let report = Report { date: &planned.run.date, number, edges: &planned.edges };
    serde_json::to_writer_pretty(&mut *out, &report).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}

/// The day as the control plane spells it.
fn day(given: Option<&str>) -> Result<String, Error> {
    let Some(given) = given else {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        return Ok(today.to_string());
    };
    let day = given.parse::<jiff::civil::Date>().ok().map(|day| day.to_string());
    day.filter(|day| day == given).ok_or_else(|| Error::BadDate { given: given.to_owned() })
}

fn credential(path: &Path) -> Result<String, Error> {
    let failed = |reason: String| Error::CredentialFile { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    match text.trim() {
        "" => Err(failed("expected one line, the operator's credential".to_owned())),
        secret => Ok(secret.to_owned()),
    }
}

fn refused(error: client::Error, file: &Path) -> Error {
    match error {
        client::Error::Status { status, .. } if matches!(status.as_u16(), 401 | 403) => {
            Error::Refused { path: file.to_owned() }
        }
        error @ (client::Error::Unavailable { .. } | client::Error::TimedOut { .. }) => {
            Error::Unreachable(error)
        }
        error => Error::Failed(error),
    }
}
