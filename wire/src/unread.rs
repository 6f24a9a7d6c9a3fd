//! Requests that the parsers of HTTP/1.1 and 3 refuse by themselves: no service sees them, so
//! they are counted here. (HTTP/2's resets such a stream, or answers 431, and tells nobody.)

use prometheus::{IntCounterVec, Registry};
use std::error::Error;

/// Why a request could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is not HTTP: answered 400, in HTTP/3 by a reset.
    Malformed,
    /// Its head is longer than what is read: 431.
    TooLarge,
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
        }
    }
}

/// Counts them.
#[derive(Debug, Clone)]
pub(crate) struct Unread(IntCounterVec);

impl Unread {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Requests refused since they can't be read, by why";
        let labels = &["protocol", "reason"];
        let counters = counting::counters(registry, "requests_unread_total", help, labels)?;
        for protocol in ["http/1.1", "h3"] {
            for why in [Why::Malformed, Why::TooLarge] {
                // An alarm sees the first one as a rise from 0.
                counters.with_label_values(&[protocol, why.name()]).inc_by(0);
            }
        }
        Ok(Self(counters))
    }

    pub(crate) fn count(&self, protocol: &str, why: Why) {
        self.0.with_label_values(&[protocol, why.name()]).inc();
    }

    /// Counts how an HTTP/1.1 connection ended, if that was by a request that could not be read:
    /// there is none after it.
    pub(crate) fn count_ended(&self, error: &(dyn Error + 'static)) {
        let Some(error) = error.downcast_ref::<hyper::Error>() else { return };
        if error.is_parse_too_large() {
            self.count("http/1.1", Why::TooLarge);
        } else if error.is_parse() {
            self.count("http/1.1", Why::Malformed);
        }
    }
}
