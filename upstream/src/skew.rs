//! How far an origin's clock is from this node's, as its answers tell: their age, and with it how
//! long they are fresh, is reckoned by both (RFC 9111 section 4.2.3).

use http::{HeaderMap, header};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `Date` counts whole seconds (RFC 9110 section 5.6.7).
const TICK_MS: i64 = 1000;

/// Seconds by which the clock is ahead at least, or behind if below 0, of who gave this answer
/// between `asked` and `came`. None where it does not tell: without `Date`, or where a cache has
/// kept it on its way (`Age`).
pub(crate) fn seconds(fields: &HeaderMap, asked: SystemTime, came: SystemTime) -> Option<i64> {
    if fields.contains_key(header::AGE) {
        return None;
    }
    let date = httpdate::parse_http_date(fields.get(header::DATE)?.to_str().ok()?).ok()?;
    let date_ms = millis(date)?;
    let least_ms = date_ms - millis(came)?;
    let most_ms = date_ms + TICK_MS - millis(asked)?;
    Some(if least_ms > 0 { least_ms / 1000 } else { most_ms.min(0) / 1000 })
}

fn millis(at: SystemTime) -> Option<i64> {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_no_delay_is_a_skew() {
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + ms);
        let told = |date_s: i64, asked_ms, came_ms| {
            let date =
                UNIX_EPOCH + Duration::from_secs(1_800_000_000u64.saturating_add_signed(date_s));
            let date = httpdate::fmt_http_date(date).parse().unwrap();
            seconds(&HeaderMap::from_iter([(header::DATE, date)]), at(asked_ms), at(came_ms))
        };
        for (date_s, asked_ms, came_ms, skew_s) in [
            (0, 0, 1, 0),
            (0, 999, 1_000, 0),
            // It took long to answer: the date may be from the begin or from the end.
            (0, 900, 30_000, 0),
            (30, 900, 30_000, 0),
            (60, 900, 30_000, 30),
            (3_600, 10, 20, 3_599),
            (-3_600, 10, 20, -3_599),
            (-2, 500, 600, -1),
        ] {
            assert_eq!(
                told(date_s, asked_ms, came_ms),
                Some(skew_s),
                "{date_s} {asked_ms} {came_ms}"
            );
        }
        let date = || (header::DATE, httpdate::fmt_http_date(at(0)).parse().unwrap());
        let kept = HeaderMap::from_iter([date(), (header::AGE, "7".parse().unwrap())]);
        let garbled = HeaderMap::from_iter([(header::DATE, "soon".parse().unwrap())]);
        for fields in [HeaderMap::new(), kept, garbled] {
            assert_eq!(seconds(&fields, at(0), at(1)), None);
        }
    }
}
