//! HTTP dates (RFC 9110 section 5.6.7) as milliseconds since the epoch.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads any of the three forms. Dates before 1970 count as not understood.
pub fn parse(value: &HeaderValue) -> Option<i64> {
    let time = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
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
        for bad in
            ["0", "-1", "", "foo", "Sun, 06 Nov 1994 08:49:37 UTC", "Thu, 18 Aug 50 02:01:18 GMT"]
        {
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
