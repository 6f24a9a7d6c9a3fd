//! Keys: how they are named, and the one form of a signature.

use aws_lc_rs::digest;

/// Why a key was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A private key that is not one of P-256 in PKCS #8.
    #[error("not a P-256 private key in PKCS #8 (RFC 5208)")]
    BadPrivateKey,
    /// A public key that is not a point of P-256.
    #[error("key {kid:?}: {expected}")]
    BadPublicKey {
        /// Its id, as given.
        kid: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// The system gave no random numbers.
    #[error("the system gave no random numbers for a new key")]
    NoEntropy,
}

/// Bytes of a key id.
pub(crate) const KID_BYTES: usize = 8;
/// Bytes of a signature: r and s.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// A key's id follows from the key.
pub(crate) fn kid(point: &[u8]) -> [u8; KID_BYTES] {
    let mut kid = [0; KID_BYTES];
    kid.copy_from_slice(&digest::digest(&digest::SHA256, point).as_ref()[..KID_BYTES]);
    kid
}

/// The order n of P-256 (FIPS 186-5), big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// n / 2, rounded down.
const ORDER_HALF: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

/// (r, s) and (r, n - s) both verify. Only the one with the lower s is taken.
pub(crate) fn is_low_s(signature: &[u8; SIGNATURE_BYTES]) -> bool {
    signature[32..] <= ORDER_HALF[..]
}

/// Turns a signature into its other form.
pub(crate) fn negate_s(signature: &mut [u8; SIGNATURE_BYTES]) {
    let mut borrow = 0;
    for (s, n) in signature[32..].iter_mut().zip(ORDER).rev() {
        let difference = i16::from(n) - i16::from(*s) - borrow;
        borrow = i16::from(difference < 0);
        *s = difference.rem_euclid(256).to_le_bytes()[0];
    }
}
