//! Names of objects: what is allowed is safe in a file system, in a URL and in a log line.

/// A longer key is refused, in bytes (S3 allows 1024, and a prefix comes before it).
const KEY_BYTES_MAX: usize = 512;

/// Whether `key` is parts of `[a-z0-9._-]`, joined by single slashes, none of which starts
/// with a dot.
pub(crate) fn is_valid(key: &str) -> bool {
    key.len() <= KEY_BYTES_MAX && key.split('/').all(is_part)
}

fn is_part(part: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn keys_that_could_leave_the_store_are_refused() {
        for good in ["a", "titles/film/00ff/v1.mp4", "published/film/00ff", "a-b_c.d"] {
            assert!(is_valid(good), "{good:?} was refused");
        }
        let long = "a".repeat(513);
        for bad in ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".incoming/a", "A", "ä", &long] {
            assert!(!is_valid(bad), "{bad:?} was taken");
        }
    }
}
