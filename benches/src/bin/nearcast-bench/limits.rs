//! What the machine can do at most, measured in the same run.

use anyhow::{Context, Result};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long each limit is measured.
const TIME: Duration = Duration::from_millis(400);
/// As a TLS record.
const RECORD_BYTES: usize = 16 << 10;
/// Larger than processors' caches.
const COPY_BYTES: usize = 64 << 20;

/// Of one core, in 10^9 bytes a second.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limits {
    /// AES-128-GCM over records of 16 KiB, sealed in place.
    pub aes_gcm_gb_s: f64,
    /// Memory to memory, bytes copied.
    pub memcpy_gb_s: f64,
}

/// Measures on the calling thread.
pub fn measure() -> Result<Limits> {
    Ok(Limits { aes_gcm_gb_s: aes_gcm()?, memcpy_gb_s: memcpy() })
}

fn aes_gcm() -> Result<f64> {
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).ok().context("an AES key")?;
    let key = LessSafeKey::new(key);
    let mut record = vec![1_u8; RECORD_BYTES];
    let mut sealed = 0_u64;
    let started = Instant::now();
    while started.elapsed() < TIME {
        for _ in 0..64 {
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&sealed.to_le_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let _tag = key
                .seal_in_place_separate_tag(nonce, Aad::from([0; 5]), &mut record)
                .ok()
                .context("AES-GCM")?;
            sealed += 1;
        }
    }
    Ok(sealed as f64 * RECORD_BYTES as f64 / 1e9 / started.elapsed().as_secs_f64())
}

fn memcpy() -> f64 {
    let from = vec![1_u8; COPY_BYTES];
    let mut to = vec![2_u8; COPY_BYTES];
    let mut copied = 0_u64;
    let started = Instant::now();
    while started.elapsed() < TIME {
        to.copy_from_slice(&from);
        copied += std::hint::black_box(&to).len() as u64;
    }
    copied as f64 / 1e9 / started.elapsed().as_secs_f64()
}
