//! HTTP dates (RFC 9110 section 5.6.7) as milliseconds since the epoch.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest text that can be a date, in bytes: no weekday and month are longer.
const DATE_BYTES_MAX: usize = 40;

/// Reads any of the three forms, whatever their case (RFC 9111 section 4.2). Dates before 1970
/// count as not understood.
pub fn parse(value: &HeaderValue) -> Option<i64> {
    let text = value.to_str().ok().filter(|text| text.len() <= DATE_BYTES_MAX)?;
    let time = httpdate::parse_http_date(text)
        .or_else(|_| httpdate::parse_http_date(&in_standard_case(text)))
        .ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// `Sun` and `Nov` with one capital each, `GMT` with three.
fn in_standard_case(text: &str) -> String {
    let zone_at = text.len().saturating_sub(3);
    let mut in_word = false;
    let letter = |(at, c): (usize, char)| {
        let first = !std::mem::replace(&mut in_word, c.is_ascii_alphabetic());
        if first || at >= zone_at { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
    };
    text.char_indices().map(letter).collect()
}

/// The one value of a date field: None if absent, malformed or there are several.
pub fn of(fields: &HeaderMap, name: &HeaderName) -> Option<i64> {
    single(fields, name).and_then(parse)
}

/// The one value of a field that has exactly one line.
pub fn single<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = fields.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// The IMF-fixdate of a time; times outside of 1970 to 9999 are moved to the nearest bound.
pub fn format(time_ms: i64) -> HeaderValue {
    const LAST_SECOND: u64 = 253_402_300_799;
    let seconds = (time_ms.max(0) as u64 / 1000).min(LAST_SECOND);
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds);
    let text = httpdate::fmt_http_date(time);
    HeaderValue::from_str(&text).expect("a formatted date is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_forms_and_nonsense() {
        let parse = |text: &str| parse(&HeaderValue::from_str(text).unwrap());
        let moment = Some(784_111_777_000);
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), moment);
        assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT"), moment);
        assert_eq!(parse("Sun Nov  6 08:49:37 1994"), moment);
        assert_eq!(parse("SUN, 06 nov 1994 08:49:37 gMt"), moment);
        assert_eq!(parse("sUNDAY, 06-NOV-94 08:49:37 GMT"), moment);
        assert!(parse("Sun, 21 Nov 2286 04:46:39 GMT").is_some());
        let malformed = [
            "0",
            "-1",
            "",
            "foo",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT",
            "Thu, 01 Jan 1960 00:00:00 GMT",
        ];
        for bad in malformed {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn format_holds_at_the_ends() {
        assert_eq!(format(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(i64::MIN), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(format(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
