//! TLS 1.3 records sealed out of place: from where the plaintext lies right into the batch that
//! the socket is given, instead of into a buffer of their own that is copied to first.
//!
//! rustls asks a *message encrypter* for each record and keeps what it returns. The one here
//! puts the records of application data into the [`Batch`] that the thread has lent it
//! ([`aside`]), and gives rustls an empty record in place of each. So rustls still decides all:
//! sequence numbers, fragments, keys and their updates, alerts. What is sealed while no batch is
//! lent goes the usual way.
//!
//! Invariant: each record is sealed once, under the number that rustls gave it.

use crate::batch::Batch;
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, Nonce, TlsProtocolId, TlsRecordSealingKey,
};
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundOpaqueMessage,
    OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm, UnsupportedOperationError,
    make_tls13_aad,
};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, aws_lc_rs as stock};
use rustls::{ContentType, Error, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite};
use std::cell::RefCell;
use std::sync::LazyLock;

/// Of a record (RFC 8446, section 5.2): type, version, length.
pub const HEAD_BYTES: usize = 5;
/// What sealing adds behind the plaintext: its type, and the tag of AES-GCM.
pub const TAIL_BYTES: usize = 1 + 16;

/// Bytes behind a record's first piece that are sealed from a copy: heads of frames, and the
/// record's type.
const ENDING_BYTES_MAX: usize = 64;

thread_local! {
    /// Where records go, while one connection writes.
    static LENT: RefCell<Option<Batch>> = const { RefCell::new(None) };
}

/// Runs `write` with the batch lent to what seals records on this thread.
pub fn aside<T>(batch: &mut Option<Batch>, write: impl FnOnce() -> T) -> T {
    LENT.with(|lent| lent.replace(batch.take()));
    let done = write();
    *batch = LENT.with(RefCell::take);
    done
}

/// rustls' own provider (aws-lc-rs), but that AES-GCM under TLS 1.3 seals out of place.
#[must_use]
pub fn provider() -> CryptoProvider {
    let mut provider = stock::default_provider();
    for suite in &mut provider.cipher_suites {
        for own in SUITES.iter() {
            if own.suite() == suite.suite() {
                *suite = *own;
            }
        }
    }
    provider
}

/// Suites live as long as the process: rustls wants that.
static SUITES: LazyLock<Vec<SupportedCipherSuite>> = LazyLock::new(|| {
    let algorithm = |suite: &SupportedCipherSuite| match suite {
        one if *one == stock::cipher_suite::TLS13_AES_128_GCM_SHA256 => Some(&AES_128_GCM),
        one if *one == stock::cipher_suite::TLS13_AES_256_GCM_SHA384 => Some(&AES_256_GCM),
        _ => None,
    };
    let own = |suite: &SupportedCipherSuite| Some(sealing(suite.tls13()?, algorithm(suite)?));
    stock::ALL_CIPHER_SUITES.iter().filter_map(own).collect()
});

fn sealing(
    suite: &'static Tls13CipherSuite,
    algorithm: &'static Algorithm,
) -> SupportedCipherSuite {
    let aead_alg = Box::leak(Box::new(OutOfPlace { stock: suite.aead_alg, algorithm }));
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: suite.hkdf_provider,
        aead_alg,
        quic: suite.quic,
    })))
}

struct OutOfPlace {
    stock: &'static dyn Tls13AeadAlgorithm,
    algorithm: &'static Algorithm,
}

impl Tls13AeadAlgorithm for OutOfPlace {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        let key = TlsRecordSealingKey::new(self.algorithm, TlsProtocolId::TLS13, key.as_ref());
        Box::new(Sealer { key: key.expect("rustls derives keys of `key_len` bytes"), iv })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.stock.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.stock.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.stock.extract_keys(key, iv)
    }
}

struct Sealer {
    key: TlsRecordSealingKey,
    iv: Iv,
}

impl Sealer {
    /// What is sealed with a record: its number, and its head.
    fn named(&self, seq: u64, bytes: usize) -> (Nonce, Aad<[u8; HEAD_BYTES]>) {
        let nonce = rustls::crypto::cipher::Nonce::new(&self.iv, seq).0;
        (Nonce::assume_unique_for_key(nonce), Aad::from(make_tls13_aad(bytes)))
    }

    /// Seals a record's payload into `out`, which has just the room for it.
    fn seal(
        &mut self,
        message: &OutboundPlainMessage<'_>,
        seq: u64,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let (nonce, aad) = self.named(seq, out.len());
        let kind = message.typ.to_array();
        if let Some((piece, end)) = Ending::after(&message.payload, kind) {
            let (text, tail) = out.split_at_mut(piece.len());
            let end = end.bytes();
            let sealed = self.key.seal_out_of_place_scatter(nonce, aad, piece, text, end, tail);
            return sealed.map_err(|_| Error::EncryptError);
        }
        let (text, tail) = out.split_at_mut(message.payload.len());
        // Of several pieces: a copy, and in place.
        gather(&message.payload, text);
        tail[..kind.len()].copy_from_slice(&kind);
        let (inner, tag) = out.split_at_mut(out.len() - (TAIL_BYTES - kind.len()));
        let sealed = self.key.seal_in_place_separate_tag(nonce, aad, inner);
        tag.copy_from_slice(sealed.map_err(|_| Error::EncryptError)?.as_ref());
        Ok(())
    }
}

impl MessageEncrypter for Sealer {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        seq: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let bytes = self.encrypted_payload_len(message.payload.len());
        let record = |payload| {
            // RFC 8446 section 5.2: all look like application data of TLS 1.2.
            OutboundOpaqueMessage::new(
                ContentType::ApplicationData,
                ProtocolVersion::TLSv1_2,
                payload,
            )
        };
        let is_data = message.typ == ContentType::ApplicationData;
        let sealed = LENT.with_borrow_mut(|lent| {
            let out = lent.as_mut().filter(|_| is_data)?.record(bytes)?;
            Some(self.seal(&message, seq, out))
        });
        if let Some(sealed) = sealed {
            return sealed.map(|()| record(PrefixedPayload::with_capacity(0)));
        }
        let mut payload = PrefixedPayload::with_capacity(bytes);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        let (nonce, aad) = self.named(seq, bytes);
        let sealed = self.key.seal_in_place_append_tag(nonce, aad, &mut payload);
        sealed.map_err(|_| Error::EncryptError)?;
        Ok(record(payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + TAIL_BYTES
    }
}

/// What is sealed behind a payload's first piece: its other bytes, if they are few, and its type.
struct Ending {
    bytes: [u8; ENDING_BYTES_MAX],
    length: usize,
}

impl Ending {
    /// A payload's first piece, and what ends it; none if more lies in other pieces.
    fn after<'a>(payload: &OutboundChunks<'a>, kind: [u8; 1]) -> Option<(&'a [u8], Self)> {
        let mut ending = Self { bytes: [0; ENDING_BYTES_MAX], length: 0 };
        let first = match *payload {
            OutboundChunks::Single(piece) => piece,
            OutboundChunks::Multiple { chunks, start, end } => {
                let mut before = 0;
                let mut first = None;
                for chunk in chunks {
                    let after = before + chunk.len();
                    let (from, to) = (start.clamp(before, after), end.clamp(before, after));
                    let piece = &chunk[from - before..to - before];
                    match first {
                        None if piece.is_empty() => {}
                        None => first = Some(piece),
                        Some(_) => ending.push(piece)?,
                    }
                    if after >= end {
                        break;
                    }
                    before = after;
                }
                first?
            }
        };
        ending.push(&kind)?;
        Some((first, ending))
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let room = self.bytes.get_mut(self.length..self.length + bytes.len())?;
        room.copy_from_slice(bytes);
        self.length += bytes.len();
        Some(())
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Copies a payload in pieces to `out`, which is as long.
fn gather(payload: &OutboundChunks<'_>, mut out: &mut [u8]) {
    let OutboundChunks::Multiple { chunks, start, end } = *payload else { return };
    let mut before = 0;
    for chunk in chunks {
        let after = before + chunk.len();
        let (from, to) = (start.clamp(before, after), end.clamp(before, after));
        let (now, rest) = out.split_at_mut(to - from);
        now.copy_from_slice(&chunk[from - before..to - before]);
        (out, before) = (rest, after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A part of several pieces is that part, whether it lies in one of them or not.
        #[test]
        fn a_payload_is_found_in_its_pieces(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 2..6),
            (from, to) in (0.0..1.0_f64, 0.0..1.0_f64),
        ) {
            let chunks: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let all = chunks.concat();
            let at = |share: f64| (share * (all.len() + 1) as f64) as usize;
            let (start, end) = (at(from.min(to)), at(from.max(to)));
            let payload = OutboundChunks::Multiple { chunks: &chunks, start, end };
            let mut out = vec![0; end - start];
            gather(&payload, &mut out);
            prop_assert_eq!(&out, &all[start..end]);
            if let Some((first, ending)) = Ending::after(&payload, [7]) {
                let found = [first, ending.bytes()].concat();
                prop_assert_eq!(found, [&all[start..end], &[7]].concat());
            }
        }
    }
}
