//! HTTP caching as plain functions: no sockets, no clock, no panic, time linear in the fields
//! (a sort of a list's members aside).
//!
//! RFC 9110 (conditions, ranges, hop-by-hop fields), 9111 (caching), 5861 (serving stale),
//! 8246 (immutable), 8586 (CDN-Loop), 9209 (Proxy-Status), 9211 (Cache-Status), 9213
//! (CDN-Cache-Control), 9218 (priorities), 9875 (cache groups), and Surrogate-Control, as a
//! *shared* cache reads them.
//! A caller passes field sections and the time; it gets a verdict or new fields back. Times are
//! milliseconds since the epoch. What an origin or a client sends may be any bytes: a field that
//! cannot be understood makes a response less reusable, never more.
//!
//! A request's way through: [`loops`]; [`selects`] and [`newest`] over the variants stored;
//! [`reuse`]; then either [`precondition`], [`if_range`] and [`ranges`] on [`Facts::reused_fields`], or
//! [`forward_request`] with [`revalidation_fields`], and of the answer [`refreshed`], or
//! [`received_fields`], [`storable`] and [`selecting`], with [`joinable`] for those who waited for
//! the same answer, and [`ends`] if it is not stored; if there was none
//! [`stale_on_error`]. After an unsafe method [`invalidated`].

use http::{HeaderMap, StatusCode};

mod age;
mod cache_status;
mod control;
mod cookies;
mod date;
mod ending;
mod facts;
mod forward;
mod freshness;
mod hop_fields;
mod invalidate;
mod list;
mod passed;
mod precondition;
mod priority;
mod proxy_status;
mod ranges;
mod refresh;
mod reuse;
mod settings;
mod storable;
mod structured;
mod surrogate;
mod tags;
mod validator;
mod vary;

pub use age::{age_ms, asked_ms};
pub use cache_status::{CacheStatus, Forwarded};
pub use cookies::Cookies;
pub use ending::{ends, is_about_request, is_for_one, is_of_one};
pub use facts::Facts;
pub use forward::{
    Forwards, Hop, append_forwarded_for, append_via, forward_request, forwards, is_forwarded,
    received_fields,
};
pub use freshness::{Freshness, Source, fresh_for_ms, freshness};
pub use invalidate::{Target, invalidated, is_of_gateway, is_safe};
pub use passed::{LOOP_HOPS_MAX, Loop, add_to_loop, loops, passed};
pub use precondition::{
    Precondition, if_range, is_conditional, is_range_dated, not_modified_fields, precondition,
    strip_conditions,
};
pub use priority::Priority;
pub use proxy_status::{ProxyError, ProxyStatus};
pub use ranges::{
    ContentRange, RangeSpec, Ranges, asks_from, content_range, is_past_counting, range_specs,
    ranges, unsatisfied_total,
};
pub use refresh::{Exchange, Fills, HeadUpdate, Renewal, fills, head_update, refreshed};
pub use reuse::{
    Reuse, Why, Wishes, joinable, outlives, request_no_store, reuse, stale_on_error,
    stale_when_slow,
};
pub use settings::{Heuristic, Settings, Ttl};
pub use storable::{Reason, SEC_PURPOSE, Storable, may_fill, storable};
pub use surrogate::{SURROGATE_CONTROL, keep_surrogate_control};
pub use tags::{OTHER_TAGS, TAG_BYTES_MAX, TAGS_MAX, Tags, tags};
pub use validator::{
    Validator, revalidation_fields, same_validator, strong_validator, strong_validator_of,
};
pub use vary::{SELECTING_MAX, Selecting, newest, selecting, selects};

/// A stored response's head: what later requests are judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The final status as received.
    pub status: StatusCode,
    /// The fields as [`received_fields`] left them; `Age` stays in as received.
    pub fields: HeaderMap,
    /// When the request was sent, in milliseconds since the epoch.
    pub requested_ms: i64,
    /// When the head arrived, in milliseconds since the epoch.
    pub received_ms: i64,
}

#[cfg(test)]
pub(crate) mod test_fields {
    //! Field sections for tests, written as `Name: value` lines.

    use super::Stored;
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

    /// 21 November 2026, 07:00:00 GMT: when test responses are received.
    pub const NOW_MS: i64 = 1_795_244_400_000;

    /// The fields of `lines`; a date written as `@seconds` is relative to [`NOW_MS`].
    pub fn fields(lines: &str) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').expect("a test's field has a colon");
            let value = match value.trim().strip_prefix('@') {
                Some(offset) => {
                    let offset: i64 = offset.parse().expect("an offset in seconds");
                    crate::date::format(NOW_MS + offset * 1000)
                }
                None => HeaderValue::from_bytes(value.trim().as_bytes()).expect("a value"),
            };
            let name: HeaderName = name.parse().expect("a test's field name");
            fields.append(name, value);
        }
        fields
    }

    /// A 200 with `lines`, received at [`NOW_MS`].
    pub fn stored(lines: &str) -> Stored {
        Stored {
            status: StatusCode::OK,
            fields: fields(lines),
            requested_ms: NOW_MS,
            received_ms: NOW_MS,
        }
    }
}
