//! What a load is: where it goes, by what, how much of it, for how long.

use crate::{Error, Protocol};
use std::net::SocketAddr;
use std::time::Duration;
use url::Url;

/// The only ciphers that a load offers, so that two servers can't differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cipher {
    /// `TLS_AES_128_GCM_SHA256`
    Aes128,
    /// `TLS_AES_256_GCM_SHA384`
    Aes256,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// The next one when one has ended: as fast as server and client can.
    Closed,
    /// This many a second at equal distances, whatever the answers do.
    Constant(f64),
    /// This many a second, independent of each other.
    Poisson(f64),
}

/// When a load ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After this time, measured from the end of the warm-up.
    Elapsed(Duration),
    /// After this many answers; without a warm-up.
    Answers(u64),
}

/// One load, against one server.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is spoken.
    pub protocol: Protocol,
    /// `scheme://host:port`; the host may be a name, see `address`.
    pub server: Url,
    /// Where to connect, when the host's address is not wanted.
    pub address: Option<SocketAddr>,
    /// What is asked for, in turn.
    pub targets: Vec<Target>,
    /// Header fields of each request.
    pub fields: Vec<(String, String)>,
    /// Connections that read as fast as they can.
    pub connections: usize,
    /// Requests at a time on an HTTP/2 or HTTP/3 connection.
    pub streams: usize,
    /// Connections that read [`Plan::slow_bytes_per_s`] each.
    pub slow: usize,
    /// What a slow connection reads, in bytes a second.
    pub slow_bytes_per_s: u64,
    /// When requests are sent.
    pub arrivals: Arrivals,
    /// What is left out of all figures, at the start.
    pub warm_up: Duration,
    /// When it ends.
    pub until: Until,
    /// Of the bodies of each target, every how manieth is hashed; lengths are always compared. Of
    /// plain HTTP/1.1 the others are not even copied out of the socket. 1 is each.
    pub check_every: u64,
    /// The core that the client's thread is bound to.
    pub core: Option<usize>,
    /// Offered in TLS.
    pub cipher: Cipher,
    /// Certificates to trust, as PEM.
    pub ca_pem: Vec<Vec<u8>>,
    /// Processes whose CPU time and memory are the server's, children included.
    pub server_pids: Vec<u32>,
    /// What a receiver may have under way: for a stream, in bytes.
    pub stream_window_bytes: u32,
    /// The same for a connection.
    pub window_bytes: u32,
}

/// A path and what is expected there.
#[derive(Debug, Clone)]
pub struct Target {
    /// With the query; `{n}` stands for a number that no other request of this load has.
    pub path: String,
    /// Length of the body; learnt from the first answer unless given.
    pub bytes: Option<u64>,
    /// XXH3-64 of the body; learnt from the first answer unless given.
    pub digest: Option<u64>,
}

impl Target {
    /// A path of which nothing is known.
    #[must_use]
    pub fn new(path: &str) -> Self {
        Self { path: path.to_owned(), bytes: None, digest: None }
    }

    /// From a line `PATH [BYTES [XXH3]]`, the digest in hex.
    ///
    /// # Errors
    /// [`Error::BadLoad`] names the line and what is wrong.
    pub fn from_line(line: &str) -> Result<Self, Error> {
        let bad = |reason: &str| Error::BadLoad {
            what: format!("target {line:?}"),
            reason: reason.to_owned(),
        };
        let mut words = line.split_whitespace();
        let path = words.next().ok_or_else(|| bad("expected PATH [BYTES [XXH3]]"))?;
        if !path.starts_with('/') {
            return Err(bad("expected a path that begins with /"));
        }
        let mut target = Self::new(path);
        if let Some(bytes) = words.next() {
            target.bytes = Some(bytes.parse().map_err(|_| bad("expected a number of bytes"))?);
        }
        if let Some(digest) = words.next() {
            let digest = u64::from_str_radix(digest, 16);
            target.digest = Some(digest.map_err(|_| bad("expected XXH3-64 in hex"))?);
        }
        if words.next().is_some() {
            return Err(bad("expected PATH [BYTES [XXH3]]"));
        }
        Ok(target)
    }

    /// The path of one request.
    pub(super) fn path_of(&self, number: u64) -> String {
        self.path.replace("{n}", &number.to_string())
    }
}

impl Plan {
    /// A closed loop of 2 s after 0.5 s of warm-up on one connection with one stream.
    #[must_use]
    pub fn new(protocol: Protocol, server: Url, targets: Vec<Target>) -> Self {
        Self {
            protocol,
            server,
            address: None,
            targets,
            fields: Vec::new(),
            connections: 1,
            streams: 1,
            slow: 0,
            slow_bytes_per_s: 4096,
            arrivals: Arrivals::Closed,
            warm_up: Duration::from_millis(500),
            until: Until::Elapsed(Duration::from_secs(2)),
            check_every: 1,
            core: None,
            cipher: Cipher::Aes128,
            ca_pem: Vec::new(),
            server_pids: Vec::new(),
            stream_window_bytes: 8 << 20,
            window_bytes: 32 << 20,
        }
    }

    /// Refuses what can't be run.
    pub(super) fn checked(&self) -> Result<(), Error> {
        let bad = |what: &str, reason: &str| {
            Err(Error::BadLoad { what: what.to_owned(), reason: reason.to_owned() })
        };
        match self.arrivals {
            Arrivals::Constant(rate) | Arrivals::Poisson(rate) if !(1e-3..=1e7).contains(&rate) => {
                return bad("rate", "expected 0.001 to 10000000 requests a second");
            }
            _ => {}
        }
        if self.targets.is_empty() {
            return bad("targets", "expected at least one path");
        }
        if self.connections + self.slow == 0 || self.streams == 0 || self.check_every == 0 {
            return bad("connections, streams, check-every", "expected at least 1");
        }
        if self.server.scheme() != self.protocol.scheme() {
            return bad(
                self.server.as_str(),
                &format!("expected {}:// for {}", self.protocol.scheme(), self.protocol),
            );
        }
        if self.slow > 0 && self.slow_bytes_per_s == 0 {
            return bad("slow-rate", "expected at least 1 byte a second");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_with_what_is_known_of_it() {
        let target = Target::from_line("/o/1m?x=1 1048576 00ff").unwrap();
        assert_eq!(target.path, "/o/1m?x=1");
        assert_eq!((target.bytes, target.digest), (Some(1 << 20), Some(0xff)));
        assert_eq!(Target::from_line("/m/{n}").unwrap().path_of(7), "/m/7");
        for line in ["", "x", "/a b", "/a 1 xyz", "/a 1 ff 2"] {
            assert!(Target::from_line(line).is_err(), "{line}");
        }
    }
}
