//! What the commands that ask edges share: whom to ask, all at once, and how answers are told.

use anyhow::{Result, bail};
use clap::Args;
use model::api::ApiError;
use service::client::{self, Client};
use service::value::Span;

/// Whom to ask, and how to tell the answers.
#[derive(Debug, Clone, Args)]
pub struct Edges {
    /// An edge's admin address; give it again for each further edge
    #[arg(
        long,
        env = "NEARCAST_ADMIN",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8081"
    )]
    admin: Vec<String>,
    /// How long an edge may take to answer
    #[arg(long, value_name = "SPAN", default_value = "10s")]
    timeout: Span,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What one edge said.
pub struct Said<T> {
    /// Its admin address.
    pub admin: String,
    /// Its answer, or why there is none.
    pub answer: Result<T, String>,
}

impl Edges {
    /// Asks all of them at the same time; the answers come in the order of the flags.
    ///
    /// # Errors
    /// When an address is none.
    pub async fn ask<T, F: Future<Output = Result<T, client::Error>>>(
        &self,
        ask: impl Fn(Client, String) -> F,
    ) -> Result<Vec<Said<T>>> {
        let admins: Vec<String> = self.admin.iter().map(|url| admin(url)).collect::<Result<_>>()?;
        let client = Client::new(self.timeout.0, None, None)?;
        let asked = admins.iter().map(|admin| ask(client.clone(), admin.clone()));
        let answers = futures::future::join_all(asked).await;
        let said = admins.into_iter().zip(answers);
        let said = said.map(|(admin, answer)| Said { admin, answer: answer.map_err(reason) });
        Ok(said.collect())
    }
}

/// An admin address, as `http://127.0.0.1:8081`.
fn admin(url: &str) -> Result<String> {
    let trimmed = url.strip_suffix('/').unwrap_or(url);
    let host = trimmed.strip_prefix("http://").or_else(|| trimmed.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@']) => {
            Ok(trimmed.to_owned())
        }
        _ => bail!("--admin {url:?}: expected an edge's admin address, as http://127.0.0.1:8081"),
    }
}

/// What went wrong: an edge's own words where it has said some. What answers otherwise may be no edge,
/// or the address that it serves at.
fn reason(error: client::Error) -> String {
    match &error {
        client::Error::Status { body, .. } => match serde_json::from_str::<ApiError>(body) {
            Ok(told) => told.message,
            Err(_) => format!("{error}; is it an edge's admin address?"),
        },
        client::Error::BadBody { .. } => format!("{error}; is it an edge's admin address?"),
        _ => error.to_string(),
    }
}

/// Fails with all that went wrong, edge by edge, if anything has.
///
/// # Errors
/// Names each edge that gave no answer, and why.
pub fn all_well<T>(said: &[Said<T>]) -> Result<()> {
    let failed: Vec<String> = said
        .iter()
        .filter_map(|said| Some(format!("{}: {}", said.admin, said.answer.as_ref().err()?)))
        .collect();
    match (failed.len(), said.len()) {
        (0, _) => Ok(()),
        (_, 1) => bail!("{}", failed.join("\n")),
        (failures, all) => bail!("{failures} of {all} edges failed:\n  {}", failed.join("\n  ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_a_server_alone() {
        assert_eq!(admin("http://127.0.0.1:8081/").unwrap(), "http://127.0.0.1:8081");
        for bad in ["127.0.0.1:8081", "http://", "http://a/b", "ftp://a", "http://u@a"] {
            let error = admin(bad).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("expected"), "{error}");
        }
    }
}
