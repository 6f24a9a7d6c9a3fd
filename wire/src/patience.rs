//! How long connections wait for their peers, and the count of those that were given up.

use crate::{HANDSHAKE_MAX, HEAD_MAX, LINGER_MAX, QUIET_MAX, SEND_STALL_MAX};
use prometheus::{IntCounterVec, Opts, Registry};
use std::time::Duration;

/// How long a peer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From accepting to the end of the TLS handshake; without TLS to the first bytes of a
    /// request.
    pub handshake: Duration,
    /// From the first byte of a request (HTTP/1.1), or from an idle connection's begin or last
    /// answer, to the end of the request's head; but for HTTP/1.1, up to a quarter more.
    pub head: Duration,
    /// A connection whose peer takes nothing of what it asked for is closed after this long.
    pub send: Duration,
    /// HTTP/1.1: for the next byte of an answer to a peer that closed its own half.
    pub quiet: Duration,
    /// TCP: from the end of a connection on this side to the client's own.
    pub linger: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            handshake: HANDSHAKE_MAX,
            head: HEAD_MAX,
            send: SEND_STALL_MAX,
            quiet: QUIET_MAX,
            linger: LINGER_MAX,
        }
    }
}

/// What a peer was waited for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Handshake,
    /// The rest of a request's head, or the first one.
    Head,
    /// Another request.
    Idle,
    /// An answer to a ping.
    Ping,
    /// That it takes bytes.
    Send,
    /// That it ends a connection that was ended from here.
    End,
}

impl Wait {
    const ALL: [Self; 6] =
        [Self::Handshake, Self::Head, Self::Idle, Self::Ping, Self::Send, Self::End];

    fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Ping => "ping",
            Self::Send => "send",
            Self::End => "end",
        }
    }
}

/// Counts peers that were given up.
#[derive(Debug, Clone)]
pub(crate) struct GivenUp(IntCounterVec);

impl GivenUp {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = "nearcast_edge_connections_given_up_total";
        let opts = Opts::new(name, "Peers that were waited for in vain, by what for");
        let counters = IntCounterVec::new(opts, &["wait"])?;
        for wait in Wait::ALL {
            // An alarm sees the first one as a rise from 0.
            counters.with_label_values(&[wait.name()]).inc_by(0);
        }
        registry.register(Box::new(counters.clone()))?;
        Ok(Self(counters))
    }

    #[cfg(test)]
    pub(crate) fn of(&self, wait: &str) -> u64 {
        self.0.with_label_values(&[wait]).get()
    }

    pub(crate) fn count(&self, wait: Wait) {
        self.0.with_label_values(&[wait.name()]).inc();
    }

    /// Counts how an HTTP connection ended, if it was given up for its peer's silence. `awaited`
    /// is what HTTP/1.1 waited for.
    pub(crate) fn count_ended(&self, error: &(dyn std::error::Error + 'static), awaited: Wait) {
        let Some(error) = error.downcast_ref::<hyper::Error>() else { return };
        if error.is_timeout() {
            // A ping's says what it was about.
            let of_ping = std::error::Error::source(error).is_some();
            self.count(if of_ping { Wait::Ping } else { awaited });
        }
    }
}
