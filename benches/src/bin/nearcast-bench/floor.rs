//! What no server over TLS can go below on this machine: to read a body and hand it to the kernel, as
//! HTTP/1.1 without TLS does it where nothing is lent, and to seal it.

use crate::cases::{Case, Cell, shown};
use crate::limits::Limits;
use crate::pair::Pair;
use crate::table::{cpu_s_per_gb, median};
use serde::Serialize;
use std::fmt;

/// Switches off what sends bodies uncopied.
pub const COPIES: (&str, &str) = ("NEARCAST_EDGE_WRITE_PATH_OFF", "sendfile");

/// The floor of one cell, in server CPU-seconds for 10^9 bytes of bodies, medians over the pairs.
#[derive(Debug, Clone, Serialize)]
pub struct Floor {
    pub case: &'static str,
    pub body_bytes: u64,
    pub connections: usize,
    /// To send it without TLS, by a copy.
    pub send_cpu_s_per_gb: f64,
    /// To seal it, in records that lie in the nearest cache.
    pub seal_cpu_s_per_gb: f64,
    /// All that the peer needs.
    pub peer_cpu_s_per_gb: f64,
    /// The first two over the third: the median over the pairs, the least, the most.
    pub ratio: f64,
    pub ratio_min: f64,
    pub ratio_max: f64,
}

/// Whether a protocol has one: HTTP/3's packets are sealed and sent otherwise.
pub fn has(case: Case) -> bool {
    matches!(case, Case::H1Tls | Case::H2Tls)
}

impl Floor {
    /// From pairs of HTTP/1.1 without TLS and the peer's `cell`.
    pub fn of(cell: Cell, limits: &Limits, pairs: &[Pair]) -> Self {
        let seal = 1.0 / limits.aes_gcm_gb_s;
        let of = |get: &dyn Fn(&Pair) -> f64| pairs.iter().map(get).collect::<Vec<f64>>();
        let ratios = of(&|pair| (cpu_s_per_gb(&pair.server) + seal) / cpu_s_per_gb(&pair.peer));
        Self {
            case: cell.case.name(),
            body_bytes: cell.body_bytes,
            connections: cell.connections,
            send_cpu_s_per_gb: median(of(&|pair| cpu_s_per_gb(&pair.server))),
            seal_cpu_s_per_gb: seal,
            peer_cpu_s_per_gb: median(of(&|pair| cpu_s_per_gb(&pair.peer))),
            ratio: median(ratios.clone()),
            ratio_min: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            ratio_max: ratios.iter().copied().fold(0.0, f64::max),
        }
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, ratio, ratio_min, ratio_max, .. } = self;
        let (send, seal) = (self.send_cpu_s_per_gb, self.seal_cpu_s_per_gb);
        write!(
            f,
            "{case} {}: to send it without TLS {send:.3} and to seal it {seal:.3} s/GB are {ratio:.2} \
             ({ratio_min:.2}..{ratio_max:.2}) of the peer's {:.3}",
            shown(self.body_bytes),
            self.peer_cpu_s_per_gb
        )
    }
}
