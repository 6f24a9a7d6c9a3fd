//! Play tokens: Common Access Tokens (CTA-5007, a CWT of RFC 8392 in a COSE_Sign1 of RFC 9052,
//! signed with ES256), minted by the control plane and verified by every edge.
//!
//! Invariant: a token has one spelling. Whatever a verifier takes re-encodes to the very bytes
//! that it was given (no other base64 padding, no longer integers, no second form of a
//! signature), so that any change of any bit is refused and a cache may use the text as key.
//!
//! What a token may say is closed: exactly the claims that [`Signer::mint`] writes. A claim that
//! is not known here refuses the token, since it could only restrict it.

mod claims;
mod key;
mod refusal;
mod sign;
mod verify;

pub use claims::{Claims, Grant};
pub use key::KeyError;
pub use refusal::Refusal;
pub use sign::Signer;
pub use verify::Verifier;

/// A longer token is refused before anything of it is decoded.
pub const TOKEN_BYTES_MAX: usize = 2048;

/// A token counts as begun this many seconds before its `nbf`: an edge's clock may be behind
/// the control plane's. `exp` has no such window: tokens live for hours, not for seconds.
pub const CLOCK_SKEW_S_MAX: u64 = 60;

#[cfg(test)]
mod tests;
