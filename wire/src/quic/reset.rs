//! The key of stateless resets (RFC 9000 section 10.3): a client whose connection this node no
//! longer knows, since it was started anew, is told so with its next packet, instead of asking
//! until it gives up.
//!
//! Invariant: one node's alone. Who holds the key can end the node's connections, and so would a
//! node with the same key that a packet strays to (section 21.11).

use aws_lc_rs::hmac;
use std::fmt;

/// What proves to a client that a reset is from the node that it knew.
#[derive(Clone)]
pub struct ResetKey([u8; ResetKey::BYTES]);

impl ResetKey {
    /// Length of a key.
    pub const BYTES: usize = 32;

    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// What to keep, for the node's owner alone.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl From<[u8; Self::BYTES]> for ResetKey {
    fn from(kept: [u8; Self::BYTES]) -> Self {
        Self(kept)
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKey")
    }
}
