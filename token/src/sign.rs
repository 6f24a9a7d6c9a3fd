//! The side that signs: the control plane's alone.

use crate::claims::{self, Grant};
use crate::key::{self, KID_BYTES, KeyError, SIGNATURE_BYTES};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coset::{CoseSign1Builder, HeaderBuilder, TaggedCborSerializable, iana};
use model::fleet::PublicKey;

/// A private ES256 key. Its `Debug` shows the key id only.
pub struct Signer {
    pair: EcdsaKeyPair,
    kid: [u8; KID_BYTES],
}

impl Signer {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::NoEntropy`].
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        pair.map(Self::of).map_err(|_| KeyError::NoEntropy)
    }

    /// A key from its PKCS #8 form (DER).
    ///
    /// # Errors
    /// [`KeyError::BadPrivateKey`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        pair.map(Self::of).map_err(|_| KeyError::BadPrivateKey)
    }

    fn of(pair: EcdsaKeyPair) -> Self {
        let kid = key::kid(pair.public_key().as_ref());
        Self { pair, kid }
    }

    /// The private key, PKCS #8 (DER): a secret.
    ///
    /// # Panics
    /// Never: a key that could be read can be written.
    #[must_use]
    pub fn pkcs8(&self) -> Vec<u8> {
        let document = self.pair.to_pkcs8v1().expect("a valid key pair encodes");
        document.as_ref().to_vec()
    }

    /// The public key, for edges.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey {
            kid: hex::encode(self.kid),
            point: hex::encode(self.pair.public_key().as_ref()),
        }
    }

    /// Mints a token: base64url without padding (RFC 4648, section 5), about 300 characters.
    ///
    /// # Panics
    /// Never for a valid key: signing fails only if the system has no random numbers.
    #[must_use]
    pub fn mint(&self, grant: &Grant) -> String {
        self.mint_payload(claims::encode(grant))
    }

    pub(crate) fn mint_payload(&self, payload: Vec<u8>) -> String {
        let protected = HeaderBuilder::new()
            .algorithm(iana::Algorithm::ES256)
            .key_id(self.kid.to_vec())
            .build();
        let signed = CoseSign1Builder::new()
            .protected(protected)
            .payload(payload)
            .create_signature(&[], |message| self.sign(message).to_vec())
            .build();
        let bytes = signed.to_tagged_vec().expect("a built COSE_Sign1 encodes");
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        let signature = signature.expect("a valid key signs");
        let mut fixed: [u8; SIGNATURE_BYTES] =
            signature.as_ref().try_into().expect("a fixed ES256 signature has 64 bytes");
        if !key::is_low_s(&fixed) {
            key::negate_s(&mut fixed);
        }
        fixed
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("kid", &hex::encode(self.kid)).finish_non_exhaustive()
    }
}
