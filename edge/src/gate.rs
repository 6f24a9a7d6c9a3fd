//! The token check: calls nobody, and remembers which tokens were good.

use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use token::{Claims, Refusal, Verifier};

/// Verified tokens remembered; each play has one, a few hundred bytes each.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Checks tokens by one set of keys. New keys come as a new gate, which remembers nothing.
pub struct Gate {
    verifier: Verifier,
    good: Mutex<LruCache<[u8; 32], Claims>>,
}

impl Gate {
    /// A gate for these keys.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self { verifier, good: Mutex::new(LruCache::new(REMEMBERED_MAX)) }
    }

    /// Whether `token` allows `method` on `path` at `now_s` (seconds since 1970 UTC).
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, token: &str, path: &str, method: &str, now_s: u64) -> Result<(), Refusal> {
        let name = *blake3::hash(token.as_bytes()).as_bytes();
        let plainly_good = |claims: &Claims| {
            (claims.not_before..claims.expires).contains(&now_s)
                && path.starts_with(&claims.path_prefix)
                && claims.methods.iter().any(|allowed| allowed == method)
        };
        let known = self.good.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if known.as_ref().is_some_and(plainly_good) {
            return Ok(());
        }
        // Whatever is not plainly good is decided, and named, by the verifier alone.
        let claims = self.verifier.verify(token, path, method, now_s)?;
        self.good.lock().unwrap_or_else(PoisonError::into_inner).put(name, claims);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_token_is_held_to_its_claims() {
        let signer = token::Signer::generate().unwrap();
        let grant = token::Grant {
            play: [1; 16],
            title: "film".parse().unwrap(),
            not_before: 1000,
            expires: 2000,
        };
        let token = signer.mint(&grant);
        let gate = Gate::new(Verifier::new(&[signer.public()]).unwrap());
        for _ in 0..2 {
            assert_eq!(gate.check(&token, "/t/film/v/hls.m3u8", "GET", 1500), Ok(()));
            let wrong = gate.check(&token, "/t/other/v/hls.m3u8", "GET", 1500).unwrap_err();
            assert_eq!(wrong.code(), "token-wrong-path");
            let late = gate.check(&token, "/t/film/v/hls.m3u8", "GET", 9000).unwrap_err();
            assert_eq!(late.code(), "token-expired");
            let method = gate.check(&token, "/t/film/v/hls.m3u8", "POST", 1500).unwrap_err();
            assert_eq!(method.code(), "token-method");
        }
    }
}
