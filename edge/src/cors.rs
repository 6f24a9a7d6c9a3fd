//! What lets a page on any origin play from here: the token in the path is the permission, so
//! no cookie or header of the page's is needed.

use http::{HeaderMap, HeaderValue, header};

/// Fields that a page may read.
const EXPOSED: &str = "Cache-Status, Content-Encoding, Content-Length, Content-Range, Date, ETag, Alt-Svc, Retry-After";

/// Adds the fields that every answer carries.
pub fn expose(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.insert("timing-allow-origin", HeaderValue::from_static("*"));
}

/// Adds the fields of the answer to a preflight.
pub fn preflight(headers: &mut HeaderMap) {
    let methods = HeaderValue::from_static("GET, HEAD, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
    headers.insert(header::ALLOW, methods);
    // Range with forms that need a preflight, and CMCD (CTA-5004) as fields.
    let fields =
        "Range, If-Range, If-None-Match, CMCD-Request, CMCD-Object, CMCD-Status, CMCD-Session";
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(fields));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page counts a body's bytes against its length, which is of the encoded form.
    #[test]
    fn a_page_can_tell_an_encoded_body_from_one_that_was_cut() {
        let mut headers = HeaderMap::new();
        expose(&mut headers);
        let exposed = headers[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
        for name in ["Content-Length", "Content-Encoding"] {
            assert!(exposed.split(", ").any(|one| one == name), "{name}");
        }
    }
}
