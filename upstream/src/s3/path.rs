//! From a client's path to the one spelling of an object's name.

/// The path that all spellings of an object's name mean, with its query dropped: each byte
/// that is not unreserved (RFC 3986, 2.3) or a slash is escaped, nothing else is. `None` when
/// no object can have that name: an empty one, a dot segment, a bad escape, NUL, or bytes that
/// are not UTF-8.
pub(crate) fn canonical(path: &str) -> Option<String> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let name = String::from_utf8(decode(path.strip_prefix('/')?)?).ok()?;
    let dots = name.split('/').any(|part| matches!(part, "." | ".."));
    if name.is_empty() || dots || name.starts_with('/') || name.contains('\0') {
        return None;
    }
    Some(format!("/{}", encode(&name)))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (escape, after) = after.split_at_checked(2)?;
        let mut byte = [0];
        hex::decode_to_slice(escape, &mut byte).ok()?;
        bytes.push(byte[0]);
        rest = after;
    }
    Some(bytes)
}

/// As AWS wants it signed.
pub(crate) fn encode(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_name_are_one() {
        for path in ["/a/b c+", "/a/b%20c+", "/%61%2Fb%20c%2b", "/a/b%20c%2B?x=1"] {
            assert_eq!(canonical(path).as_deref(), Some("/a/b%20c%2B"), "{path}");
        }
    }

    #[test]
    fn names_that_no_object_has() {
        for path in [
            "/",
            "",
            "a",
            "//a",
            "/a/../b",
            "/%2e%2e/b",
            "/a%00",
            "/a%",
            "/a%2",
            "/%zz",
            "/%ff",
            "/./a",
            "/?list-type=2",
        ] {
            assert_eq!(canonical(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn it_is_its_own_spelling(path in "/[ -~]{1,40}") {
            if let Some(once) = canonical(&path) {
                prop_assert_eq!(canonical(&once), Some(once));
            }
        }

        #[test]
        fn names_survive(name in "[^\0/.][^\0]{0,30}") {
            if let Some(path) = canonical(&format!("/{}", encode(&name))) {
                prop_assert_eq!(decode(&path[1..]), Some(name.into_bytes()));
            }
        }
    }
}
