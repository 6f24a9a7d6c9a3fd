//! The side that verifies: pure, calls nobody, holds no secret.

use crate::claims::{self, Claims};
use crate::key::{self, KID_BYTES, KeyError, SIGNATURE_BYTES};
use crate::{CLOCK_SKEW_S_MAX, Refusal, TOKEN_BYTES_MAX};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coset::cbor::value::Value;
use coset::{Algorithm, AsCborValue, CborSerializable, CoseSign1, Header, iana};
use model::fleet::PublicKey;
use std::collections::HashMap;
use std::sync::Arc;

/// CBOR tag of a CWT (RFC 8392, section 6): may enclose the COSE_Sign1.
const TAG_CWT: u64 = 61;
/// CBOR tag of a COSE_Sign1 (RFC 9052, section 2).
const TAG_SIGN1: u64 = 18;
/// Uncompressed point of P-256 (SEC 1, section 2.3.3).
const POINT_BYTES: usize = 65;

/// The public keys that tokens may be signed with. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    keys: Arc<HashMap<[u8; KID_BYTES], ParsedPublicKey>>,
}

impl Verifier {
    /// A verifier for these keys; with none, it refuses every token.
    ///
    /// # Errors
    /// [`KeyError::BadPublicKey`] names the first key that is not one, or whose id is not the
    /// one that follows from its point.
    pub fn new(keys: &[PublicKey]) -> Result<Self, KeyError> {
        let keys = keys.iter().map(parse_key).collect::<Result<_, _>>()?;
        Ok(Self { keys: Arc::new(keys) })
    }

    /// Checks a token for a request: signature, claims, time, path, method, in this order.
    /// `path` is the URL's path below the token, as `model::route` gives it: canonical, so it is
    /// compared byte by byte. `now_s` counts seconds since 1970 UTC.
    ///
    /// # Errors
    /// The first [`Refusal`] that holds.
    pub fn verify(
        &self,
        token: &str,
        path: &str,
        method: &str,
        now_s: u64,
    ) -> Result<Claims, Refusal> {
        let claims = self.authentic(token)?;
        in_time(&claims, now_s)?;
        if !path.starts_with(&claims.path_prefix) {
            return Err(Refusal::WrongPath);
        }
        if !claims.methods.iter().any(|allowed| allowed == method) {
            return Err(Refusal::Method);
        }
        Ok(claims)
    }

    /// As [`Self::verify`], for what is not a request for the title's media: events of its play.
    ///
    /// # Errors
    /// The first [`Refusal`] that holds.
    pub fn verify_play(&self, token: &str, now_s: u64) -> Result<Claims, Refusal> {
        let claims = self.authentic(token)?;
        in_time(&claims, now_s).map(|()| claims)
    }

    fn authentic(&self, token: &str) -> Result<Claims, Refusal> {
        let signed = parse(token)?;
        let kid = known_header(&signed)?;
        let key = self.keys.get(&kid).ok_or(Refusal::UnknownKey)?;
        let signature: [u8; SIGNATURE_BYTES] =
            signed.signature.as_slice().try_into().map_err(|_| Refusal::BadSignature)?;
        if !key::is_low_s(&signature) {
            return Err(Refusal::BadSignature);
        }
        key.verify_sig(&signed.tbs_data(&[]), &signature).map_err(|_| Refusal::BadSignature)?;
        claims::decode(signed.payload.as_deref().ok_or(Refusal::Malformed("no claims"))?)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kids: Vec<String> = self.keys.keys().map(hex::encode).collect();
        f.debug_struct("Verifier").field("kids", &kids).finish()
    }
}

fn parse_key(key: &PublicKey) -> Result<([u8; KID_BYTES], ParsedPublicKey), KeyError> {
    let bad =
        |expected| KeyError::BadPublicKey { kid: key.kid.chars().take(32).collect(), expected };
    let mut point = [0; POINT_BYTES];
    hex::decode_to_slice(&key.point, &mut point)
        .map_err(|_| bad("expected a point of 130 hexadecimal digits"))?;
    let kid = key::kid(&point);
    if hex::encode(kid) != key.kid {
        return Err(bad("expected the id that follows from the point"));
    }
    let parsed = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .map_err(|_| bad("expected an uncompressed point of P-256"))?;
    Ok((kid, parsed))
}

fn parse(token: &str) -> Result<CoseSign1, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::Malformed("too long"));
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Refusal::Malformed("not base64url"))?;
    let value = Value::from_slice(&bytes).map_err(|_| Refusal::Malformed("not CBOR"))?;
    if value.clone().to_vec().ok().as_deref() != Some(&bytes) {
        return Err(Refusal::Malformed("not in the shortest encoding"));
    }
    let signed = match value {
        Value::Tag(TAG_CWT, inner) => untag(*inner),
        other => untag(other),
    };
    let signed = signed.ok_or(Refusal::Malformed("not a COSE_Sign1"))?;
    CoseSign1::from_cbor_value(signed).map_err(|_| Refusal::Malformed("not a COSE_Sign1"))
}

fn untag(value: Value) -> Option<Value> {
    match value {
        Value::Tag(TAG_SIGN1, inner) => Some(*inner),
        _ => None,
    }
}

/// The protected header is ES256 and a key id, in the shortest encoding; the unprotected one,
/// which no signature covers, is empty.
fn known_header(signed: &CoseSign1) -> Result<[u8; KID_BYTES], Refusal> {
    let header = &signed.protected.header;
    if !header.crit.is_empty() {
        return Err(Refusal::UnknownClaim);
    }
    if header.alg != Some(Algorithm::Assigned(iana::Algorithm::ES256)) {
        return Err(Refusal::Malformed("another algorithm than ES256"));
    }
    let plain =
        Header { alg: header.alg.clone(), key_id: header.key_id.clone(), ..Header::default() };
    let canonical = plain.to_vec().map_err(|_| Refusal::Malformed("header"))?;
    if signed.protected.original_data.as_ref() != Some(&canonical) {
        return Err(Refusal::Malformed("an unexpected header"));
    }
    if !signed.unprotected.is_empty() {
        return Err(Refusal::Malformed("an unprotected header"));
    }
    header.key_id.as_slice().try_into().map_err(|_| Refusal::UnknownKey)
}

fn in_time(claims: &Claims, now_s: u64) -> Result<(), Refusal> {
    if now_s >= claims.expires {
        return Err(Refusal::Expired);
    }
    if now_s.saturating_add(CLOCK_SKEW_S_MAX) < claims.not_before {
        return Err(Refusal::NotYet);
    }
    Ok(())
}
