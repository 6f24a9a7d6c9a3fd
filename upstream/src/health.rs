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
                    tokio::spawn(async move { is_well(&site, &way, path).await })
                })
                .collect();
            for (place, check) in checks.into_iter().enumerate() {
                let well = check.await.unwrap_or(false);
                against[place] = if well == healthy[place] { 0 } else { against[place] + 1 };
                if against[place] < IN_ROW {
                    continue;
                }
                (healthy[place], against[place]) = (well, 0);
                let way = &site.origins[place].way;
                way.meter.healthy.set(i64::from(well));
                if way.hop.set_healthy(well) {
                    tracing::warn!(hop = %way.hop.id, well, "health check");
                }
            }
        }
        // Between half and the whole: edges that started together don't check together.
        tokio::time::sleep(interval.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

async fn is_well(site: &Inner, way: &Way, path: String) -> bool {
    let host = site.config.site.to_string();
    let mut sending = Sending::new(Ask::get(host, path, [0; 16]), HeaderMap::new());
    sending.pass_host = site.config.pass_host;
    let asked = async {
        let (request, _) = sending.request(&way.hop).await.ok()?;
        let response = way.hop.pool.request(request).await.ok()?;
        Some(response.status().as_u16() < 400)
    };
    tokio::time::timeout(ANSWER_MAX, asked).await.ok().flatten() == Some(true)
}
