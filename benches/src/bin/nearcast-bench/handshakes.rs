//! What a TLS handshake costs the server: connections that are made, asked once for 2 KiB, and
//! closed, one after the other, with and without a ticket of the last one.

use crate::pair::How;
use crate::servers::Running;
use anyhow::{Context, Result, bail};
use loadtest::load::Cipher;
use loadtest::load::server::usage;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, Stream};
use serde::Serialize;
use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET /o/2048/0 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
/// What an answer has at most: 2 KiB and a head.
const ANSWER_BYTES_MAX: u64 = 16 << 10;
/// Handshakes before those that count.
const WARM_UP: usize = 20;
/// A server that does not answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Handshakes of one kind: medians over the pairs.
#[derive(Debug, Clone, Serialize)]
pub struct Handshakes {
    pub server: String,
    pub peer: String,
    /// By a ticket of an earlier connection.
    pub is_resumed: bool,
    /// Connections of one answer for one CPU-second of the server.
    pub per_cpu_s: f64,
    pub peer_per_cpu_s: f64,
    /// The server's CPU time for one over the peer's: below 1 it is cheaper.
    pub ratio: f64,
    pub ratio_min: f64,
    pub ratio_max: f64,
    pub pairs: usize,
}

impl fmt::Display for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_resumed { "resumed" } else { "full" };
        write!(
            f,
            "TLS, {kind}: {:.0} connections of one answer a CPU-second, {} {:.0}: {:.2} of its CPU time ({:.2}..{:.2})",
            self.per_cpu_s,
            self.peer,
            self.peer_per_cpu_s,
            self.ratio,
            self.ratio_min,
            self.ratio_max
        )
    }
}

/// Measures both kinds, in pairs.
pub fn measure(how: &How, both: [&Running; 2]) -> Result<Vec<Handshakes>> {
    let run = || -> Result<Vec<Handshakes>> {
        crate::bind_to(how.core)?;
        [false, true].map(|is_resumed| of_kind(how, both, is_resumed)).into_iter().collect()
    };
    let measured = std::thread::scope(|scope| scope.spawn(run).join());
    measured.ok().context("the handshakes have panicked")?
}

fn of_kind(how: &How, both: [&Running; 2], is_resumed: bool) -> Result<Handshakes> {
    let mut costs = [Vec::new(), Vec::new()];
    for number in 0..how.pairs {
        for place in if number % 2 == 0 { [0, 1] } else { [1, 0] } {
            costs[place].push(cost(how, both[place], is_resumed)?);
        }
    }
    let [own, peer] = costs;
    let ratios: Vec<f64> = own.iter().zip(&peer).map(|(own, peer)| own / peer).collect();
    let rate = |costs: Vec<f64>| 1.0 / crate::table::median(costs);
    Ok(Handshakes {
        server: both[0].name.clone(),
        peer: both[1].name.clone(),
        is_resumed,
        per_cpu_s: rate(own),
        peer_per_cpu_s: rate(peer),
        ratio: crate::table::median(ratios.clone()),
        ratio_min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratio_max: ratios.iter().copied().fold(0.0, f64::max),
        pairs: how.pairs,
    })
}

/// Server CPU-seconds for one connection.
fn cost(how: &How, one: &Running, is_resumed: bool) -> Result<f64> {
    let config = config(how, is_resumed)?;
    // The first one gets the tickets that the others use.
    for _ in 0..WARM_UP {
        connect(one, &config)?;
    }
    let wanted = if is_resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
    let (before, started) = (usage(&[one.pid()])?, Instant::now());
    let mut count = 0;
    while started.elapsed() < how.time {
        let kind = connect(one, &config)?;
        if kind != wanted {
            bail!("{}: a handshake was {kind:?}, expected {wanted:?}", one.name);
        }
        count += 1;
    }
    let after = usage(&[one.pid()])?;
    let spent = after.user_s + after.system_s - before.user_s - before.system_s;
    Ok(spent / f64::from(count))
}

fn config(how: &How, is_resumed: bool) -> Result<Arc<ClientConfig>> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![match how.cipher {
        Cipher::Aes128 => suite::TLS13_AES_128_GCM_SHA256,
        Cipher::Aes256 => suite::TLS13_AES_256_GCM_SHA384,
    }];
    // The group that both have, so that both do the same work.
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&how.ca_pem)?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption =
        if is_resumed { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

fn connect(one: &Running, config: &Arc<ClientConfig>) -> Result<HandshakeKind> {
    let mut tcp = TcpStream::connect(("127.0.0.1", one.https))?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(ANSWER_MAX))?;
    let name = ServerName::try_from("127.0.0.1")?;
    let mut session = ClientConnection::new(Arc::clone(config), name)?;
    let mut stream = Stream::new(&mut session, &mut tcp);
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    if !answer.starts_with(b"HTTP/1.1 200") || answer.len() < 2048 {
        bail!("{}: {:?}", one.name, String::from_utf8_lossy(&answer[..answer.len().min(100)]));
    }
    session.handshake_kind().context("no handshake")
}
