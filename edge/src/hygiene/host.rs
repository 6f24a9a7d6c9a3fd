//! The host that a request is for: one, well formed, and the same wherever it is named.

use super::Refusal;
use http::request::Parts;
use http::{Version, header};
use std::net::Ipv6Addr;

/// RFC 1035 section 2.3.4.
const NAME_BYTES_MAX: usize = 253;

/// A host, as sites are looked up by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// Its name in lower case without a last dot, an IPv4 address, or an IPv6 address in
    /// brackets.
    pub name: String,
    /// Its port, if it was named.
    pub port: Option<u16>,
}

/// The host of a request: of its target, of its `Host` field, or of both if they agree. RFC
/// 9112 section 3.2 would let the target win; who sends two means trouble.
pub fn of(head: &Parts) -> Result<Option<Host>, Refusal> {
    let mut named = head.headers.get_all(header::HOST).iter();
    let field = named.next();
    if named.next().is_some() {
        return Err(Refusal::HostTwice);
    }
    let field = match field {
        None => None,
        Some(field) => Some(Host::parse(field.to_str().map_err(|_| Refusal::HostBad)?)?),
    };
    let target = head.uri.authority().map(|authority| Host::parse(authority.as_str()));
    match (target.transpose()?, field) {
        (Some(target), Some(field)) if target != field => Err(Refusal::HostUnlike),
        // Also `Host` alone in HTTP/2 and 3 (RFC 9113 section 8.3.1).
        (Some(host), _) | (None, Some(host)) => Ok(Some(host)),
        (None, None) if head.version <= Version::HTTP_10 => Ok(None),
        (None, None) => Err(Refusal::HostMissing),
    }
}

impl Host {
    /// Parses `host[:port]` (RFC 9110 section 7.2); user information is refused.
    ///
    /// # Errors
    /// [`Refusal::HostBad`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or(Refusal::HostBad)?;
                let address: Ipv6Addr = address.parse().map_err(|_| Refusal::HostBad)?;
                let port = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':').ok_or(Refusal::HostBad)?),
                };
                (format!("[{address}]"), port)
            }
            None => {
                let (name, port) = text.split_once(':').map_or((text, None), |(n, p)| (n, Some(p)));
                (registered(name)?, port)
            }
        };
        let port = match port {
            None | Some("") => None,
            Some(digits)
                if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                Some(digits.parse().map_err(|_| Refusal::HostBad)?)
            }
            Some(_) => return Err(Refusal::HostBad),
        };
        Ok(Self { name, port })
    }
}

/// A host with other letters than those of ASCII in its name, as clients send it (RFC 5891 section 4.4);
/// none if its name is in ASCII, or can't be.
pub fn in_ascii(text: &str) -> Option<String> {
    let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
    match url::Host::parse(name) {
        Ok(url::Host::Domain(ascii)) if !name.is_ascii() => Some(format!("{ascii}{port}")),
        _ => None,
    }
}

/// A name of letters, digits, `-` and `_` between dots (an IPv4 address is one as well).
fn registered(name: &str) -> Result<String, Refusal> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label =
        |label: &[u8]| !label.is_empty() && label.len() <= 63 && label.iter().all(allowed);
    let mut labels = name.as_bytes().split(|byte| *byte == b'.');
    let fits = name.len() <= NAME_BYTES_MAX && labels.all(is_label);
    if !fits {
        return Err(Refusal::HostBad);
    }
    // With room for a port.
    let mut lower = String::with_capacity(name.len() + ":65535".len());
    lower.push_str(name);
    lower.make_ascii_lowercase();
    Ok(lower)
}
