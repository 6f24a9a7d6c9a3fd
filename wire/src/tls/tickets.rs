//! Session tickets (RFC 8446 section 4.6.1, RFC 5077) that every node with the same secret
//! accepts: a player that is moved to another edge shakes hands without a signature.
//!
//! Keys come from the secret and the period of time alone, so nodes need to agree on nothing
//! but both, to within a period. A ticket is `name (16) | salt (16) | ciphertext | tag (16)`:
//! AES-256-GCM under a key and a nonce that are derived for this ticket from the period's key
//! and the salt, so that no number of tickets wears a key out.
//!
//! Invariant: a ticket that is not whole and ours, of the period before, this or the next one,
//! gives nothing, and the handshake is a full one.

use super::Metrics;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long tickets are issued under one key.
pub const PERIOD: Duration = Duration::from_secs(6 * 60 * 60);
/// The shortest secret worth the name.
pub const SECRET_BYTES_MIN: usize = 32;

const NAME_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// The tickets of a node. Its secret can be replaced while it serves.
pub struct Tickets(Mutex<Secrets>);

/// What keys are made from.
struct Secrets {
    current: Keys,
    /// The secret before: its tickets are good for as long as one says.
    before: Option<(Keys, u64)>,
}

/// The keys of one secret around one period.
struct Keys {
    secret: Prk,
    period: u64,
    /// Of the period before, this one, the next.
    around: [Arc<PeriodKey>; 3],
}

struct PeriodKey {
    name: [u8; NAME_BYTES],
    key: Prk,
}

/// So many bytes of key material.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derived<const N: usize>(from: &Prk, what: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    let material = from.expand(what, Length(N)).and_then(|material| material.fill(&mut bytes));
    material.expect("a few bytes are within HKDF's limit");
    bytes
}

impl PeriodKey {
    fn of(secret: &Prk, period: u64) -> Arc<Self> {
        let period = period.to_be_bytes();
        let key: [u8; KEY_BYTES] = derived(secret, &[b"key", &period]);
        let name = derived(secret, &[b"name", &period]);
        Arc::new(Self { name, key: Prk::new_less_safe(HKDF_SHA256, &key) })
    }

    fn cipher(&self, salt: &[u8]) -> (LessSafeKey, Nonce) {
        let bytes: [u8; KEY_BYTES + NONCE_LEN] = derived(&self.key, &[salt]);
        let (key, nonce) = bytes.split_at(KEY_BYTES);
        let key = UnboundKey::new(&AES_256_GCM, key).expect("it is as long as the key is");
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("it is as long as a nonce is");
        (LessSafeKey::new(key), nonce)
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).ok()?;
        let (key, nonce) = self.cipher(&salt);
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(nonce, Aad::from(&self.name), &mut sealed).ok()?;
        Some([&self.name[..], &salt, &sealed].concat())
    }

    fn open(&self, salt: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (key, nonce) = self.cipher(salt);
        let mut plain = sealed.to_vec();
        let bytes = key.open_in_place(nonce, Aad::from(&self.name), &mut plain).ok()?.len();
        plain.truncate(bytes);
        Some(plain)
    }
}

impl Keys {
    fn of(secret: &[u8], period: u64) -> Self {
        // Extracted once: what `extract` gives would do that again for each ticket.
        let extracted = Salt::new(HKDF_SHA256, b"nearcast tickets").extract(secret);
        let secret: [u8; KEY_BYTES] = derived(&extracted, &[b"secret"]);
        let secret = Prk::new_less_safe(HKDF_SHA256, &secret);
        let around = Self::around(&secret, period);
        Self { secret, period, around }
    }

    fn around(secret: &Prk, period: u64) -> [Arc<PeriodKey>; 3] {
        [period.saturating_sub(1), period, period + 1].map(|near| PeriodKey::of(secret, near))
    }

    fn at(&mut self, period: u64) -> &[Arc<PeriodKey>; 3] {
        if self.period != period {
            self.around = Self::around(&self.secret, period);
            self.period = period;
        }
        &self.around
    }
}

impl Secrets {
    fn current(&mut self, period: u64) -> Arc<PeriodKey> {
        Arc::clone(&self.current.at(period)[1])
    }

    /// The key of this name, of the current secret or, for a while, of the one before.
    fn named(&mut self, name: &[u8], period: u64) -> Option<Arc<PeriodKey>> {
        if self.before.as_ref().is_some_and(|(_, last)| period > *last) {
            self.before = None;
        }
        let before = self.before.as_mut().map(|(keys, _)| keys.at(period).as_slice());
        let mut all = self.current.at(period).iter().chain(before.unwrap_or_default());
        all.find(|key| key.name == *name).cloned()
    }
}

fn period_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / PERIOD.as_secs()
}

impl Tickets {
    /// Tickets under this secret, or under one that no other node has.
    #[must_use]
    pub fn new(secret: Option<&[u8]>) -> Self {
        Self::at(secret, period_now())
    }

    fn at(secret: Option<&[u8]>, period: u64) -> Self {
        let mut own = [0; SECRET_BYTES_MIN];
        let secret = secret.unwrap_or_else(|| {
            rand::fill(&mut own).expect("the system gives random bytes");
            &own
        });
        Self(Mutex::new(Secrets { current: Keys::of(secret, period), before: None }))
    }

    /// Issues tickets under another secret from now on; those of the one before are accepted
    /// to the end of the next period.
    pub fn replace(&self, secret: &[u8]) {
        let period = period_now();
        let mut secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut secrets.current, Keys::of(secret, period));
        secrets.before = Some((before, period + 1));
    }

    fn seal(&self, plain: &[u8], period: u64) -> Option<Vec<u8>> {
        // The lock is held for the key alone: sealing goes on beside others.
        let key = self.0.lock().unwrap_or_else(PoisonError::into_inner).current(period);
        key.seal(plain)
    }

    fn open(&self, ticket: &[u8], period: u64) -> Result<Vec<u8>, Bad> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES).ok_or(Bad::Unknown)?;
        let (salt, sealed) = rest.split_at_checked(SALT_BYTES).ok_or(Bad::Unknown)?;
        let key = self.0.lock().unwrap_or_else(PoisonError::into_inner).named(name, period);
        key.ok_or(Bad::Unknown)?.open(salt, sealed).ok_or(Bad::Broken)
    }
}

/// Why a ticket gives nothing.
#[derive(Debug, PartialEq, Eq)]
enum Bad {
    /// Of another secret, or too old.
    Unknown,
    /// Of this secret by its name, but not as it was issued.
    Broken,
}

/// The tickets of one transport, counted.
pub(super) struct Counted {
    pub(super) tickets: Arc<Tickets>,
    pub(super) transport: &'static str,
    pub(super) metrics: Metrics,
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("transport", &self.transport).finish_non_exhaustive()
    }
}

impl ProducesTickets for Counted {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // What is issued at the end of a period is accepted to the end of the next one.
        u32::try_from(PERIOD.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ticket = self.tickets.seal(plain, period_now());
        self.metrics.ticket(self.transport, if ticket.is_some() { "issued" } else { "unissued" });
        ticket
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let opened = self.tickets.open(ticket, period_now());
        let end = match opened {
            Ok(_) => "accepted",
            Err(Bad::Unknown) => "unknown",
            Err(Bad::Broken) => "broken",
        };
        self.metrics.ticket(self.transport, end);
        opened.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"a secret of a cluster of 4 edges";
    const OTHER: &[u8] = b"the secret of some other cluster";

    #[test]
    fn nodes_with_one_secret_accept_each_others_tickets_for_a_period_more() {
        let (a, b) = (Tickets::at(Some(SECRET), 100), Tickets::at(Some(SECRET), 7));
        let ticket = a.seal(b"session", 100).unwrap();
        for (period, accepted) in [(98, false), (99, true), (100, true), (101, true), (102, false)]
        {
            let opened = b.open(&ticket, period);
            let expected = if accepted { Ok(b"session".to_vec()) } else { Err(Bad::Unknown) };
            assert_eq!(opened, expected, "{period}");
        }
        for other in [Some(OTHER), None] {
            assert_eq!(Tickets::at(other, 100).open(&ticket, 100), Err(Bad::Unknown));
        }
    }

    #[test]
    fn a_ticket_is_sealed_anew_each_time_and_no_byte_of_it_can_be_changed() {
        let tickets = Tickets::at(Some(SECRET), 5);
        let ticket = tickets.seal(b"session", 5).unwrap();
        assert_ne!(tickets.seal(b"session", 5).unwrap(), ticket);
        for place in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[place] ^= 1;
            let expected = if place < NAME_BYTES { Bad::Unknown } else { Bad::Broken };
            assert_eq!(tickets.open(&bad, 5), Err(expected), "{place}");
            assert!(tickets.open(&ticket[..place], 5).is_err(), "{place}");
        }
    }

    #[test]
    fn the_secret_before_is_accepted_to_the_end_of_the_next_period() {
        let tickets = Tickets::at(Some(SECRET), period_now());
        let now = period_now();
        let ticket = tickets.seal(b"session", now).unwrap();
        tickets.replace(OTHER);
        assert!(tickets.open(&ticket, now).is_ok());
        assert!(tickets.open(&ticket, now + 1).is_ok());
        let new = tickets.seal(b"session", now).unwrap();
        assert!(Tickets::at(Some(OTHER), now).open(&new, now).is_ok());
        assert_eq!(tickets.open(&ticket, now + 2), Err(Bad::Unknown));
    }
}
