//! Which bytes of an object may be asked for together, where its runs have owners. Pure.

use super::RUN_BYTES_MAX;
use model::chunk::CHUNK_BYTES;

/// Bytes between two choices of who fetches them: the owner among siblings is chosen per run.
pub const OWNED_RUN_BYTES: u64 = 64 << 20;

/// Where the run ends that a byte lies in. One request is for bytes of one run: the owner of the
/// next may be another node, and were it this one, both could wait for each other.
pub fn owned_run_end(at: u64) -> u64 {
    (at / OWNED_RUN_BYTES + 1).saturating_mul(OWNED_RUN_BYTES)
}

/// The first chunk that is not asked for together with chunk `first`, though all up to `until`
/// are wanted.
pub fn run_until(first: u64, until: u64) -> u64 {
    let owned = owned_run_end(first * CHUNK_BYTES) / CHUNK_BYTES;
    until.min(first + RUN_BYTES_MAX / CHUNK_BYTES).min(owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_is_for_chunks_of_one_run() {
        for (first, until, expected) in [
            (0, 3, 3),
            (0, 1000, 16),
            (50, 1000, 64),
            (63, 1000, 64),
            (64, 1000, 80),
            (126, 127, 127),
        ] {
            assert_eq!(run_until(first, until), expected, "{first} {until}");
        }
        assert_eq!(owned_run_end(0), OWNED_RUN_BYTES);
        assert_eq!(owned_run_end(OWNED_RUN_BYTES - 1), OWNED_RUN_BYTES);
        assert_eq!(owned_run_end(OWNED_RUN_BYTES), 2 * OWNED_RUN_BYTES);
        assert_eq!(owned_run_end(u64::MAX), u64::MAX);
    }
}
