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

/// [`of`] a time that may lie ahead of `now_ms`: two digits of a year stand for the latest that is at
/// most 50 years ahead (RFC 9110 section 5.6.7), unless the weekday names an earlier one.
pub fn ahead(fields: &HeaderMap, name: &HeaderName, now_ms: i64) -> Option<i64> {
    let value = single(fields, name)?;
    // Of two digits that reads 1970 to 2069, and only what fits the weekday.
    parse(value).or_else(|| in_short(value, now_ms))
}

/// A year of the Gregorian calendar, on average.
const YEAR_MS: i64 = 31_556_952_000;
const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// `Sunday, 06-Nov-94 08:49:37 GMT`, with the latest year that it may mean.
fn in_short(value: &HeaderValue, now_ms: i64) -> Option<i64> {
    let text = value.to_str().ok().filter(|text| text.len() <= DATE_BYTES_MAX)?;
    let text = in_standard_case(text);
    let (day, rest) = text.split_once(", ")?;
    let day = WEEKDAYS.iter().find(|name| **name == day)?;
    let (date, time) = rest.split_once(' ')?;
    let (number, date) = date.split_once('-')?;
    let (month, digits) = date.split_once('-')?;
    let digits: i64 = digits.parse().ok().filter(|_| digits.len() == 2)?;
    let last_ms = now_ms.saturating_add(50 * YEAR_MS);
    let last = 1970 + last_ms.div_euclid(YEAR_MS);
    let year = last - (last - digits).rem_euclid(100);
    let full = format!("{}, {number} {month} {year} {time}", &day[..3]);
    parse(&HeaderValue::from_str(&full).ok()?).filter(|time_ms| *time_ms <= last_ms)
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

    /// RFC 9110 section 5.6.7, on 22 November 2026.
    #[test]
    fn two_digits_of_a_year_reach_fifty_years_ahead() {
        const NOW_MS: i64 = 1_795_305_600_000;
        let name = HeaderName::from_static("expires");
        let read = |text: &str| {
            let fields =
                HeaderMap::from_iter([(name.clone(), HeaderValue::from_str(text).unwrap())]);
            ahead(&fields, &name, NOW_MS).map(format)
        };
        for (text, expected) in [
            ("Wednesday, 01-Jan-70 00:00:00 GMT", "Wed, 01 Jan 2070 00:00:00 GMT"),
            ("wednesday, 01-jan-70 00:00:00 gmt", "Wed, 01 Jan 2070 00:00:00 GMT"),
            // The weekday of 1970.
            ("Thursday, 01-Jan-70 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("Saturday, 21-Nov-76 00:00:00 GMT", "Sat, 21 Nov 2076 00:00:00 GMT"),
            ("Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("Sunday, 22-Nov-26 00:00:00 GMT", "Sun, 22 Nov 2026 00:00:00 GMT"),
        ] {
            assert_eq!(read(text), Some(HeaderValue::from_static(expected)), "{text}");
        }
        // More than 50 years ahead, no day of that name, none of the forms.
        for bad in [
            "Tuesday, 24-Nov-76 00:00:00 GMT",
            "Friday, 01-Jan-70 00:00:00 GMT",
            "Wed, 01-Jan-70 00:00:00 GMT",
            "Wednesday, 01-Jan-170 00:00:00 GMT",
            "Wednesday, 01 Jan 70 00:00:00 GMT",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn format_holds_at_the_ends() {
        assert_eq!(format(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(format(i64::MIN), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(format(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
