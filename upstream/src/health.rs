//! Active health checks: asks each origin of a site at times whether it is well.

use crate::ask::Ask;
use crate::exchange::Sending;
use crate::hop::Way;
use crate::upstream::Inner;
use http::HeaderMap;
use std::sync::Weak;
use std::time::Duration;

/// Checks in a row that change what is believed.
const IN_ROW: u32 = 2;
/// The longest wait for an answer to a check.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Checks until the site is gone.
pub(crate) async fn watch(site: Weak<Inner>, path: String, interval: Duration) {
    let mut against: Vec<u32> = Vec::new();
    let mut healthy: Vec<bool> = Vec::new();
    loop {
        {
            let Some(site) = site.upgrade() else { return };
            against.resize(site.origins.len(), 0);
            healthy.resize(site.origins.len(), true);
            let checks: Vec<_> = site
                .origins
                .iter()
                .map(|origin| {
                    let (way, site) = (origin.way.clone(), site.clone());
                    let path = path.clone();
                    tokio::spawn(async move { ask(&site, &way, path).await })
                })
                .collect();
            for (place, check) in checks.into_iter().enumerate() {
                let checked = check.await.unwrap_or_else(|error| Err(error.to_string()));
                let well = checked.is_ok();
                against[place] = if well == healthy[place] { 0 } else { against[place] + 1 };
                if against[place] < IN_ROW {
                    continue;
                }
                (healthy[place], against[place]) = (well, 0);
                let way = &site.origins[place].way;
                way.meter.healthy.set(i64::from(well));
                if way.hop.set_healthy(well) {
                    let why = checked.err();
                    tracing::warn!(hop = %way.hop.id, well, why, "health check");
                }
            }
        }
        // Between half and the whole: edges that started together don't check together.
        tokio::time::sleep(interval.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

/// # Errors
/// What is wrong.
async fn ask(site: &Inner, way: &Way, path: String) -> Result<(), String> {
    let host = site.config.site.to_string();
    let mut sending = Sending::new(Ask::get(host, path, [0; 16]), HeaderMap::new());
    sending.pass_host = site.config.pass_host;
    let asked = async {
        let (request, _) = sending.request(&way.hop).await.map_err(|fault| fault.to_string())?;
        let response = way.hop.pool.request(request).await;
        match response.map_err(|lost| service::client::chain(&lost.error))?.status() {
            status if status.as_u16() < 400 => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    };
    let timed_out = |_| Err(format!("no answer within {ANSWER_MAX:?}"));
    tokio::time::timeout(ANSWER_MAX, asked).await.unwrap_or_else(timed_out)
}
