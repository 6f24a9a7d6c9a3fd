//! Whether an answer is one to what was asked: one that is sound by itself may be none, and then that
//! try has failed; or one and more, and then the rest is left out. Pure.

use crate::fault::Misread;
use caching::{ContentRange, RangeSpec};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

/// Why it is none, if it is none: a 304 to who has named nothing that it could go on using (RFC 9110
/// section 15.4.5), a 206 of other bytes than were asked for, or what a HEAD is told of no length that
/// a body can have: of that the HTTP library takes no notice. `asked`: the request's fields.
pub(crate) fn wrong(method: &Method, asked: &HeaderMap, head: &Parts) -> Option<String> {
    let is_get = *method == Method::GET;
    match head.status {
        _ if *method == Method::HEAD && !has_one_length(&head.headers) => {
            Some(format!("{} to HEAD, with lengths that no body can have", head.status.as_u16()))
        }
        StatusCode::NOT_MODIFIED if is_get || *method == Method::HEAD => {
            let conditions = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];
            let is_conditional = conditions.iter().any(|name| asked.contains_key(name));
            (!is_conditional).then(|| "304 to a request without a condition".to_owned())
        }
        StatusCode::PARTIAL_CONTENT if is_get => {
            (!is_part_of(asked, &head.headers)).then(|| said(asked, &head.headers))
        }
        _ => None,
    }
}

/// How the one range that was asked for was taken, to which a 206 is wrong. As `bytes=10-19` is byte
/// 1,019 to servers that leave out all else, it may begin at the number that all digits make; or at
/// the first byte, as of those that heed where a range ends alone.
pub(crate) fn misread(asked: &HeaderMap, head: &Parts) -> Option<Misread> {
    let mut specs = caching::range_specs(asked);
    let (Some(Some(RangeSpec::From { first, last })), None) = (specs.next(), specs.next()) else {
        return None;
    };
    let given = caching::content_range(&head.headers)?.range.start;
    let digits = last.and_then(|last| format!("{first}{last}").parse::<u64>().ok());
    match head.status {
        StatusCode::PARTIAL_CONTENT if Some(given) == digits => Some(Misread::Digits),
        StatusCode::PARTIAL_CONTENT if given == 0 && first > 0 => Some(Misread::NoStart),
        _ => None,
    }
}

/// Leaves out of the head of a 206 what it holds beyond the one range that was asked for, as of
/// servers that heed where a range begins and not where it ends. What is before byte `reach` stays
/// in any case. How many bytes are left of the body then; none where all of it is.
pub(crate) fn shortened(
    method: &Method,
    asked: &HeaderMap,
    reach: Option<u64>,
    head: &mut Parts,
) -> Option<u64> {
    let fields = &mut head.headers;
    if *method != Method::GET || head.status != StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let mut specs = caching::range_specs(asked);
    let (Some(RangeSpec::From { last, .. }), None) = (specs.next()?, specs.next()) else {
        return None;
    };
    let last = last.map(|last| last.saturating_add(1));
    let end = last.map_or(reach, |end| Some(reach.map_or(end, |reach| end.max(reach))))?;
    let ContentRange { range, total } = caching::content_range(fields)?;
    let bytes = end.checked_sub(range.start).filter(|bytes| (1..range.bytes).contains(bytes))?;
    let total = total.map_or("*".to_owned(), |total| total.to_string());
    let given = format!("bytes {}-{}/{total}", range.start, end - 1);
    fields.insert(header::CONTENT_RANGE, HeaderValue::try_from(given).ok()?);
    if fields.contains_key(header::CONTENT_LENGTH) {
        fields.insert(header::CONTENT_LENGTH, bytes.into());
    }
    // Of all that came (RFC 9530 section 2).
    fields.remove("content-digest");
    fields.remove("content-md5");
    Some(bytes)
}

/// Whether a 206 begins with what was asked for: an origin may send less, but nothing else (RFC 9110
/// section 15.3.7), and what it sends beyond that is left out. Of several ranges that is for who
/// asked for them to see, as is what has numbers that can't be counted here.
fn is_part_of(asked: &HeaderMap, fields: &HeaderMap) -> bool {
    if !asked.contains_key(header::RANGE) {
        return caching::is_past_counting(fields);
    }
    let mut specs = caching::range_specs(asked);
    let (Some(Some(spec)), None) = (specs.next(), specs.next()) else { return true };
    let Some(given) = caching::content_range(fields) else {
        return caching::is_past_counting(fields);
    };
    let is_asked = match spec {
        RangeSpec::From { first, .. } => given.range.start == first,
        RangeSpec::Last { bytes } => given.range.bytes <= bytes,
    };
    let framed = fields.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let framed = framed.and_then(|length| length.trim().parse::<u64>().ok());
    is_asked && framed.is_none_or(|framed| framed == given.range.bytes)
}

/// Whether all lengths that are told are the same one (RFC 9110 section 8.6), as hyper reads those of
/// bodies.
fn has_one_length(fields: &HeaderMap) -> bool {
    let told = fields.get_all(header::CONTENT_LENGTH).iter();
    let told = told.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    let mut lengths = told.map(|length| one_length(length.trim()));
    let Some(first) = lengths.next() else { return true };
    first.is_some() && lengths.all(|other| other == first)
}

/// Digits alone: a sign is none.
fn one_length(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|length| is_number && *length < u64::MAX - 1)
}

fn said(asked: &HeaderMap, fields: &HeaderMap) -> String {
    let shown = |fields: &HeaderMap, name: header::HeaderName, none: &str| match fields.get(&name) {
        Some(value) => value.as_bytes().escape_ascii().to_string(),
        None => none.to_owned(),
    };
    let given = shown(fields, header::CONTENT_RANGE, "no Content-Range");
    let length = shown(fields, header::CONTENT_LENGTH, "no length");
    format!("206, {given}, {length}, to {}", shown(asked, header::RANGE, "no Range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(range: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::RANGE, HeaderValue::from_str(range).unwrap())])
    }

    fn head(range: &str, bytes: u64) -> Parts {
        let head = http::Response::builder()
            .status(206)
            .header("content-range", range)
            .header("content-length", bytes)
            .header("content-digest", "sha-256=:AA==:");
        head.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_goes_on_beyond_the_range_is_left_out() {
        for (asked, reach, given, bytes, left) in [
            ("bytes=10-19", None, "bytes 10-99/100", 90, Some("bytes 10-19/100")),
            ("bytes=10-19", None, "bytes 10-99/*", 90, Some("bytes 10-19/*")),
            ("bytes=10-19", Some(50), "bytes 10-99/100", 90, Some("bytes 10-49/100")),
            ("bytes=10-19", Some(15), "bytes 10-99/100", 90, Some("bytes 10-19/100")),
            ("bytes=10-19", Some(100), "bytes 10-99/100", 90, None),
            ("bytes=10-19", None, "bytes 10-19/100", 10, None),
            ("bytes=10-19", None, "bytes 10-14/100", 5, None),
            ("bytes=10-", None, "bytes 10-99/100", 90, None),
            ("bytes=10-", Some(50), "bytes 10-99/100", 90, Some("bytes 10-49/100")),
            ("bytes=-90", Some(50), "bytes 10-99/100", 90, None),
            ("bytes=10-19,30-39", None, "bytes 10-99/100", 90, None),
        ] {
            let (asked, mut head) = (fields(asked), head(given, bytes));
            assert_eq!(wrong(&Method::GET, &asked, &head), None, "{asked:?}");
            let bytes = shortened(&Method::GET, &asked, reach, &mut head);
            let told = head.headers.get("content-range").unwrap();
            assert_eq!(told, left.unwrap_or(given), "{asked:?} {reach:?}");
            assert_eq!(bytes.is_some(), left.is_some(), "{asked:?} {reach:?}");
            assert_eq!(head.headers.contains_key("content-digest"), left.is_none());
            let told = caching::content_range(&head.headers).unwrap().range.bytes;
            assert_eq!(head.headers["content-length"], told.to_string());
            assert_eq!(bytes.unwrap_or(told), told);
        }
    }

    #[test]
    fn who_takes_all_digits_for_one_number_is_told_by_that() {
        for (asked, given, misread_as) in [
            ("bytes=0-19", "bytes 19-99/100", Some(Misread::Digits)),
            ("bytes=1-2", "bytes 12-99/100", Some(Misread::Digits)),
            ("bytes=1-2", "bytes 13-99/100", None),
            ("bytes=1-2", "bytes 0-2/100", Some(Misread::NoStart)),
            ("bytes=12-", "bytes 0-99/100", Some(Misread::NoStart)),
            ("bytes=0-19", "bytes 0-9/100", None),
            ("bytes=12-", "bytes 11-99/100", None),
            ("bytes=-12", "bytes 12-99/100", None),
            ("bytes=1-2,3-4", "bytes 12-99/100", None),
            ("bytes=99999999999999999-99999999999999999", "bytes 9-99/100", None),
        ] {
            assert_eq!(misread(&fields(asked), &head(given, 1)), misread_as, "{asked} {given}");
        }
    }

    /// Found by an audit: a HEAD was told what no GET was let have.
    #[test]
    fn a_head_with_lengths_that_no_body_can_have_is_wrong() {
        for (lengths, is_wrong) in [
            (&[][..], false),
            (&["10"], false),
            (&["0"], false),
            (&["10", "10"], false),
            (&["10, 10"], false),
            (&["10", "20"], true),
            (&["10, 20"], true),
            (&["18446744073709551615"], true),
            (&["18446744073709551616"], true),
            (&["-1"], true),
            (&["+10"], true),
            (&["ten"], true),
            (&[""], true),
        ] {
            let mut head = http::Response::new(()).into_parts().0;
            for length in lengths {
                head.headers.append(header::CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            let wrong = |method| wrong(&method, &HeaderMap::new(), &head);
            assert_eq!(wrong(Method::HEAD).is_some(), is_wrong, "{lengths:?}");
            assert_eq!(wrong(Method::GET), None, "a GET's are the library's to read");
        }
    }

    #[test]
    fn what_begins_elsewhere_or_is_of_another_length_than_it_says_is_wrong() {
        for (given, bytes) in [
            ("bytes 9-19/100", 11),
            ("bytes 11-19/100", 9),
            ("bytes 10-99/100", 91),
            ("bytes 10-99/99", 90),
        ] {
            assert!(wrong(&Method::GET, &fields("bytes=10-19"), &head(given, bytes)).is_some());
        }
    }
}
