//! What an error of HTTP/2 says of the answer that it ended.

use super::ErrorType;
use h2::{Error, Reason};

/// Before the head. What h2 found itself is wrong with what came; else the server has reset the
/// stream, or the connection is gone.
pub(super) fn head(error: &Error) -> ErrorType {
    match error.reason().filter(|_| error.is_library()) {
        Some(_) if is_of_size(error) => ErrorType::HttpResponseHeaderSectionSize,
        Some(_) => ErrorType::HttpProtocolError,
        None => ErrorType::ConnectionTerminated,
    }
}

/// In mid-body. A length that other bytes came for than it says is an error of the protocol (RFC 9113
/// section 8.1.1), like others; `is_short`: some of it has not come. Nor has any of a frame that goes
/// past the length, which h2 tells from an early end by its log alone: both are taken for that.
pub(super) fn body(error: &Error, is_short: bool) -> ErrorType {
    match is_short || !error.is_library() {
        true => ErrorType::HttpResponseIncomplete,
        false => ErrorType::HttpProtocolError,
    }
}

/// Whether a head was too long: in all (as h2 is vendored, or further, with the connection), in its
/// frames, or in one string.
fn is_of_size(error: &Error) -> bool {
    match error.reason() {
        Some(Reason::COMPRESSION_ERROR) => true,
        Some(Reason::ENHANCE_YOUR_CALM) if error.is_reset() => true,
        // The reasons that h2 gives with it are told by its text alone.
        Some(Reason::ENHANCE_YOUR_CALM) => {
            let why = error.to_string();
            why.contains("header_list_way_too_large") || why.contains("too_many_continuations")
        }
        _ => false,
    }
}

/// Whether a server says that it has not looked at the request: it refused it (RFC 9113 section
/// 8.7), or began to close the connection before it (section 6.8). h2 gives GOAWAY as the error of
/// streams after the last one that it names; others go on.
pub(super) fn is_refused(error: &Error) -> bool {
    let is_refused = error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (error.is_go_away() || (error.is_reset() && is_refused))
}
