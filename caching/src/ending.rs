//! When an answer that is not stored itself ends what is (RFC 9111 section 4.3.3).

use crate::{Settings, Stored, control, fresh_for_ms, request_no_store};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

/// A stored response was to be revalidated, and the origin gave another answer of this `status`,
/// which takes no place in the store. Whether it ends the stored response for all: it would be
/// served stale otherwise, though the origin has answered. The answer to a request [`is_of_one`]
/// never does: many origins hide by 404 what such a one may not have. Of others, 404 and 410 always
/// do, more only where nobody may have what is stored unasked any more; what fails, or is about how
/// the request was put, never does.
#[must_use]
pub fn ends(
    request: &HeaderMap,
    stored: &Stored,
    status: StatusCode,
    now_ms: i64,
    settings: &Settings,
    soft_purged: bool,
) -> bool {
    let is_fresh = || !soft_purged && fresh_for_ms(stored, now_ms, settings) > 0;
    match status.as_u16() {
        404 | 410 => !is_of_one(request),
        200..=303 | 305..=399 | 401 | 403 | 451 => !is_of_one(request) && !is_fresh(),
        _ => false,
    }
}

/// Whether the answer to a request is that client's alone, so that it takes nothing from others. A
/// cookie says no such thing: nearly all browsers send some.
#[must_use]
pub fn is_of_one(request: &HeaderMap) -> bool {
    request.contains_key(AUTHORIZATION) || request_no_store(request)
}

/// Whether an answer is for the one who asked alone, as that one or the origin says.
#[must_use]
pub fn is_for_one(request: &HeaderMap, response: &HeaderMap, settings: &Settings) -> bool {
    is_of_one(request) || control::of_response(response, &settings.targeted).private
}

/// Whether an error may be about the fields, the address or the rights of the one who asked, and so
/// tells nothing of what others would be answered (RFC 9110 section 15.5): all of them but 404 and
/// 410, which are about what is there.
#[must_use]
pub fn is_about_request(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::{NOW_MS, fields, stored};

    #[test]
    fn what_the_origin_says_of_the_resource_ends_it_and_what_it_says_of_the_request_does_not() {
        let ends = |request: &str, later_s: i64, status: u16, soft_purged: bool| {
            let (request, stored) = (fields(request), stored("Cache-Control: max-age=10"));
            let status = StatusCode::from_u16(status).unwrap();
            let now_ms = NOW_MS + later_s * 1000;
            ends(&request, &stored, status, now_ms, &Settings::default(), soft_purged)
        };
        let (gone, other) = ([404, 410], [200, 204, 206, 302, 401, 403, 451]);
        let of_request = [304, 400, 406, 408, 412, 416, 429, 431, 500, 503];
        for request in ["", "Cookie: a=b", "Authorization: x", "Cache-Control: no-store"] {
            let is_of_one = !request.is_empty() && !request.starts_with("Cookie");
            for (later_s, soft_purged) in [(9, false), (9, true), (10, false)] {
                let is_stale = later_s == 10 || soft_purged;
                let told = format!("{request:?} {later_s} {soft_purged}");
                let ends = |status: &u16| ends(request, later_s, *status, soft_purged);
                assert!(gone.iter().all(|it| ends(it) != is_of_one), "{told}");
                assert!(other.iter().all(|it| ends(it) == (is_stale && !is_of_one)), "{told}");
                assert!(!of_request.iter().any(ends), "{told}");
            }
        }
    }
}
