//! TLS 1.3 records (RFC 8446, section 5), opened in place in the buffer they were read into.
//! rustls makes the handshake; a general TLS stream afterwards costs a client more than many
//! servers spend, so that the client would be what is measured.

use crate::Error;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

/// Record header: type, version, length.
const HEADER_BYTES: usize = 5;
/// A record's payload, RFC 8446 section 5.2: 2^14 + 256.
const PAYLOAD_BYTES_MAX: usize = (1 << 14) + 256;
/// Room in one sealed record.
const PLAIN_BYTES_MAX: usize = 1 << 14;
const APPLICATION_DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
/// Handshake messages after the handshake.
const NEW_SESSION_TICKET: u8 = 4;

/// Both directions of an established session.
pub(super) struct Records {
    read: Half,
    write: Half,
}

struct Half {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

/// What [`Records::open`] did.
pub(super) struct Opened {
    /// Bytes at the front of the buffer that are done with.
    pub used: usize,
    /// The peer has closed its side.
    pub closed: bool,
}

impl Records {
    pub(super) fn new(secrets: ExtractedSecrets) -> Result<Self, Error> {
        Ok(Self { read: Half::new(secrets.rx)?, write: Half::new(secrets.tx)? })
    }

    /// Hands each whole record's application data to `sink`.
    pub(super) fn open(
        &mut self,
        buffer: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Opened, Error> {
        let mut used = 0;
        while let Some(header) = buffer[used..].first_chunk::<HEADER_BYTES>().copied() {
            let payload = usize::from(u16::from_be_bytes([header[3], header[4]]));
            if payload > PAYLOAD_BYTES_MAX {
                return Err(broken("a record that is too long"));
            }
            let end = used + HEADER_BYTES + payload;
            let Some(record) = buffer.get_mut(used + HEADER_BYTES..end) else { break };
            used = end;
            if header[0] != APPLICATION_DATA {
                return Err(broken("an unprotected record after the handshake"));
            }
            let (kind, content) = self.read.open(&header, record)?;
            match (kind, content.first()) {
                (APPLICATION_DATA, _) => sink(content)?,
                (HANDSHAKE, Some(&NEW_SESSION_TICKET)) => {}
                (ALERT, _) if content == [1, 0] => return Ok(Opened { used, closed: true }),
                (ALERT, _) => return Err(broken(&format!("alert {content:?}"))),
                _ => return Err(broken("a record that is neither data, ticket nor alert")),
            }
        }
        Ok(Opened { used, closed: false })
    }

    /// Appends `plain` to `out` as records.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        for part in plain.chunks(PLAIN_BYTES_MAX) {
            self.write.seal(part, out)?;
        }
        Ok(())
    }
}

impl Half {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            _ => return Err(broken("a cipher that was not offered")),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| broken("a key"))?;
        let iv = iv.as_ref().try_into().map_err(|_| broken("an initialization vector"))?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// RFC 8446, section 5.3.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    fn open<'a>(
        &mut self,
        header: &[u8; HEADER_BYTES],
        record: &'a mut [u8],
    ) -> Result<(u8, &'a [u8]), Error> {
        let nonce = self.nonce();
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(header), record)
            .map_err(|_| broken("a record that can't be decrypted"))?;
        // Zeros may follow the content's type.
        let kind = plain.iter().rposition(|byte| *byte != 0);
        let kind = kind.ok_or_else(|| broken("a record without a type"))?;
        Ok((plain[kind], &plain[..kind]))
    }

    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let nonce = self.nonce();
        let tag = self.key.algorithm().tag_len();
        let length = u16::try_from(plain.len() + 1 + tag).expect("a part is at most 2^14 bytes");
        let [high, low] = length.to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        out.extend_from_slice(&header);
        let mut sealed = Vec::with_capacity(plain.len() + 1 + tag);
        sealed.extend_from_slice(plain);
        sealed.push(APPLICATION_DATA);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed)
            .map_err(|_| broken("a record that can't be encrypted"))?;
        out.extend_from_slice(&sealed);
        Ok(())
    }
}

fn broken(what: &str) -> Error {
    Error::Tls(format!("the server sent {what}"))
}
