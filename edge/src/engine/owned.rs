//! Which bytes of an object may be asked for together, where its runs have owners. Pure.

use super::RUN_BYTES_MAX;
use model::chunk::CHUNK_BYTES;

/// Bytes between two choices of who fetches them: the owner among siblings is chosen per run.
pub const OWNED_RUN_BYTES: u64 = upstream::RUN_BYTES;

/// A chunk that is wanted, and what is wanted behind it.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// The chunk.
    pub number: u64,
    /// The first one that is not asked for together with it.
    pub until: u64,
    /// The first one that is not wanted, as far as is known: what an answer brings of the others
    /// though it was not asked for is taken.
    pub end: u64,
}

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

/// Chunks that a response asks for at first, of an object of which it wants more than a request
/// may bring.
const FIRST_CHUNKS: u64 = 2;

/// The first chunk that is not asked for together with chunk `number` by a response that began with
/// chunk `first` and wants all up to `until`. Players ask for a film from some byte on to its end,
/// and leave at the next seek: what an origin has sent by then, as much as the buffers of the sockets
/// between have room for, is sent for nothing. So a response that wants more than one request brings
/// asks for as much again as it has had, and for two chunks at first.
pub fn growing_until(first: u64, number: u64, until: u64) -> u64 {
    let left = until.saturating_sub(number);
    if left <= RUN_BYTES_MAX / CHUNK_BYTES {
        return until;
    }
    until.min(number + number.saturating_sub(first).max(FIRST_CHUNKS))
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

    #[test]
    fn a_response_asks_for_as_much_again_as_it_has_had() {
        let asked = |first: u64, until: u64| {
            let mut at = first;
            std::iter::from_fn(move || {
                let next = run_until(at, growing_until(first, at, until));
                let bytes = next - at;
                at = next;
                (bytes > 0).then_some(bytes)
            })
        };
        assert_eq!(asked(0, 1000).take(7).collect::<Vec<_>>(), [2, 2, 4, 8, 16, 16, 16]);
        assert_eq!(asked(5, 40).collect::<Vec<_>>(), [2, 2, 4, 8, 16, 3]);
        // What one request brings is one request.
        assert_eq!(asked(5, 21).collect::<Vec<_>>(), [16]);
    }
}
