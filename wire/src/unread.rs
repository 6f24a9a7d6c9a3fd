//! Requests that the parsers refuse by themselves: no service sees them, so they are counted here.
//! (HTTP/2's tells of those that end the connection, and of 431 where it was begun as HTTP/2; that it
//! reset a stream it tells nobody.)

use prometheus::{IntCounterVec, Registry};
use std::error::Error;

/// Why a request could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is not HTTP: answered 400, in HTTP/3 by a reset, in HTTP/2 by the connection's end.
    Malformed,
    /// Its head is longer than what is read: 431.
    TooLarge,
    /// More frames of the kinds that floods are made of than are read: HTTP/2's `ENHANCE_YOUR_CALM`.
    TooMany,
}

impl Why {
    fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::TooMany => "too-many",
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
        for (protocol, whys) in [
            ("http/1.1", &[Why::Malformed, Why::TooLarge][..]),
            ("h2", &[Why::Malformed, Why::TooLarge, Why::TooMany]),
            ("h3", &[Why::Malformed, Why::TooLarge]),
        ] {
            for why in whys {
                // An alarm sees the first one as a rise from 0.
                counters.with_label_values(&[protocol, why.name()]).inc_by(0);
            }
        }
        Ok(Self(counters))
    }

    pub(crate) fn count(&self, protocol: &str, why: Why) {
        self.0.with_label_values(&[protocol, why.name()]).inc();
    }

    /// Counts how a connection of HTTP/1.1 or 2 ended, if that was by what could not be read: there
    /// is nothing after it.
    pub(crate) fn count_ended(&self, error: &(dyn Error + 'static)) {
        let Some(error) = error.downcast_ref::<hyper::Error>() else { return };
        let of_h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        if let Some(reason) = of_h2.filter(|error| error.is_library()).and_then(h2::Error::reason) {
            let why = match reason {
                h2::Reason::ENHANCE_YOUR_CALM => Why::TooMany,
                _ => Why::Malformed,
            };
            return self.count("h2", why);
        }
        if error.is_parse_too_large() {
            self.count("http/1.1", Why::TooLarge);
        } else if error.is_parse() {
            self.count("http/1.1", Why::Malformed);
        }
    }
}
