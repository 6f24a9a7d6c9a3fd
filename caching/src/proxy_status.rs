//! The `Proxy-Status` field (RFC 9209): why there is no answer of the next hop.

use crate::structured::{key, list, name_item, named, printable, string, value};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sfv::{ListEntry, ListSerializer, TokenRef};
use std::fmt;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Longest `details` or `next-hop` written, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// Errors of RFC 9209 section 2.3 that an edge can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyError {
    /// The resolver did not answer in time.
    DnsTimeout,
    /// The resolver answered with an error.
    DnsError,
    /// No next hop is configured for the request.
    DestinationNotFound,
    /// The next hop is known to be down.
    DestinationUnavailable,
    /// The configuration forbids the next hop's address.
    DestinationIpProhibited,
    /// No route to the next hop.
    DestinationIpUnroutable,
    /// The connection was refused.
    ConnectionRefused,
    /// The connection closed before any of the answer came.
    ConnectionTerminated,
    /// Connecting took too long.
    ConnectionTimeout,
    /// Reading took too long.
    ConnectionReadTimeout,
    /// Writing took too long.
    ConnectionWriteTimeout,
    /// All connections to the next hop are taken.
    ConnectionLimitReached,
    /// TLS failed.
    TlsProtocolError,
    /// The next hop's certificate is not valid.
    TlsCertificateError,
    /// The next hop sent a TLS alert.
    TlsAlertReceived,
    /// The request is malformed.
    HttpRequestError,
    /// The request is refused.
    HttpRequestDenied,
    /// The answer ended early.
    HttpResponseIncomplete,
    /// The answer's fields are too long in all.
    HttpResponseHeaderSectionSize,
    /// The answer's content is too long.
    HttpResponseBodySize,
    /// The answer's transfer coding cannot be read.
    HttpResponseTransferCoding,
    /// No answer in time.
    HttpResponseTimeout,
    /// The switch to another protocol failed.
    HttpUpgradeFailed,
    /// The next hop broke the protocol.
    HttpProtocolError,
    /// The response was made here.
    ProxyInternalResponse,
    /// A fault of this node.
    ProxyInternalError,
    /// A fault of this node's configuration.
    ProxyConfigurationError,
    /// The request came through here before.
    ProxyLoopDetected,
}

impl ProxyError {
    const ALL: [Self; 28] = [
        Self::DnsTimeout,
        Self::DnsError,
        Self::DestinationNotFound,
        Self::DestinationUnavailable,
        Self::DestinationIpProhibited,
        Self::DestinationIpUnroutable,
        Self::ConnectionRefused,
        Self::ConnectionTerminated,
        Self::ConnectionTimeout,
        Self::ConnectionReadTimeout,
        Self::ConnectionWriteTimeout,
        Self::ConnectionLimitReached,
        Self::TlsProtocolError,
        Self::TlsCertificateError,
        Self::TlsAlertReceived,
        Self::HttpRequestError,
        Self::HttpRequestDenied,
        Self::HttpResponseIncomplete,
        Self::HttpResponseHeaderSectionSize,
        Self::HttpResponseBodySize,
        Self::HttpResponseTransferCoding,
        Self::HttpResponseTimeout,
        Self::HttpUpgradeFailed,
        Self::HttpProtocolError,
        Self::ProxyInternalResponse,
        Self::ProxyInternalError,
        Self::ProxyConfigurationError,
        Self::ProxyLoopDetected,
    ];

    /// What the node `name` itself reports in an answer that came from it. Its member is the last
    /// (RFC 9209 section 2): those before it are of nodes nearer to the origin, and an answer that
    /// it only passes on has none of it. None as well for an error that is not known here.
    #[must_use]
    pub fn reported(fields: &HeaderMap, name: &str) -> Option<Self> {
        let members = list(fields, &PROXY_STATUS)?;
        let ListEntry::Item(last) = members.last()? else { return None };
        let is_its_own = named(last) == Some(name);
        let error = last.params.get(key("error")).filter(|_| is_its_own)?;
        let error = error.as_token()?.as_str();
        Self::ALL.into_iter().find(|known| known.as_str() == error)
    }

    /// The registered token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DnsTimeout => "dns_timeout",
            Self::DnsError => "dns_error",
            Self::DestinationNotFound => "destination_not_found",
            Self::DestinationUnavailable => "destination_unavailable",
            Self::DestinationIpProhibited => "destination_ip_prohibited",
            Self::DestinationIpUnroutable => "destination_ip_unroutable",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTerminated => "connection_terminated",
            Self::ConnectionTimeout => "connection_timeout",
            Self::ConnectionReadTimeout => "connection_read_timeout",
            Self::ConnectionWriteTimeout => "connection_write_timeout",
            Self::ConnectionLimitReached => "connection_limit_reached",
            Self::TlsProtocolError => "tls_protocol_error",
            Self::TlsCertificateError => "tls_certificate_error",
            Self::TlsAlertReceived => "tls_alert_received",
            Self::HttpRequestError => "http_request_error",
            Self::HttpRequestDenied => "http_request_denied",
            Self::HttpResponseIncomplete => "http_response_incomplete",
            Self::HttpResponseHeaderSectionSize => "http_response_header_section_size",
            Self::HttpResponseBodySize => "http_response_body_size",
            Self::HttpResponseTransferCoding => "http_response_transfer_coding",
            Self::HttpResponseTimeout => "http_response_timeout",
            Self::HttpUpgradeFailed => "http_upgrade_failed",
            Self::HttpProtocolError => "http_protocol_error",
            Self::ProxyInternalResponse => "proxy_internal_response",
            Self::ProxyInternalError => "proxy_internal_error",
            Self::ProxyConfigurationError => "proxy_configuration_error",
            Self::ProxyLoopDetected => "proxy_loop_detected",
        }
    }

    /// The status that RFC 9209 recommends; where it leaves the choice, 502.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::DnsTimeout
            | Self::ConnectionTimeout
            | Self::ConnectionReadTimeout
            | Self::ConnectionWriteTimeout
            | Self::HttpResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::DestinationUnavailable | Self::ConnectionLimitReached => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::DestinationNotFound
            | Self::ProxyInternalError
            | Self::ProxyConfigurationError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::HttpRequestError => StatusCode::BAD_REQUEST,
            Self::HttpRequestDenied => StatusCode::FORBIDDEN,
            // RFC 9209 section 2.3.25 names 502; 508 says more to whoever set up the loop.
            Self::ProxyLoopDetected => StatusCode::LOOP_DETECTED,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One node's member of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyStatus<'a> {
    /// What went wrong.
    pub error: ProxyError,
    /// More, for whoever runs the node. It is shown to clients: no addresses, no secrets.
    pub details: Option<&'a str>,
    /// The next hop's name.
    pub next_hop: Option<&'a str>,
    /// What the next hop answered, if it did.
    pub received_status: Option<StatusCode>,
}

impl ProxyStatus<'_> {
    /// The member for the node `name`.
    #[must_use]
    pub fn value(&self, name: &str) -> HeaderValue {
        let mut list = ListSerializer::new();
        let (token, text) = name_item(name);
        let item = match token {
            Some(token) => list.bare_item(token),
            None => list.bare_item(string(&text)),
        };
        let error = TokenRef::from_str(self.error.as_str()).expect("constant tokens are tokens");
        let mut item = item.parameter(key("error"), error);
        if let Some(status) = self.received_status {
            item = item.parameter(key("received-status"), sfv::Integer::from(status.as_u16()));
        }
        for (name, text) in [("next-hop", self.next_hop), ("details", self.details)] {
            if let Some(text) = text {
                let text = printable(text, TEXT_BYTES_MAX);
                item = item.parameter(key(name), string(&text));
            }
        }
        let _ = item;
        value(list.finish().expect("the list has a member"))
    }

    /// Appends the member after those of the nodes nearer to the origin.
    pub fn append(&self, name: &str, fields: &mut HeaderMap) {
        // Fails only past 32,768 fields, which no listener lets in.
        let _ = fields.try_append(PROXY_STATUS, self.value(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_reports_is_its_own_member_and_the_last() {
        use ProxyError as E;
        for (said, reported) in [
            (&["region-1;error=connection_limit_reached"][..], Some(E::ConnectionLimitReached)),
            (&["\"region-1\"; error=dns_error; details=\"a, b\""], Some(E::DnsError)),
            (
                &["cdn;error=dns_error, region-1;error=http_protocol_error"],
                Some(E::HttpProtocolError),
            ),
            (&["cdn;error=dns_error", "region-1;error=dns_timeout"], Some(E::DnsTimeout)),
            // Passed on, or no error.
            (&["cdn;error=dns_error"], None),
            (&["region-1;error=dns_error, cdn;error=dns_error"], None),
            (&["region-1"], None),
            (&["region-1;error=of_a_later_day"], None),
            (&["region-1;error=dns_error;"], None),
            (&[], None),
        ] {
            let mut fields = HeaderMap::new();
            for line in said {
                fields.append(PROXY_STATUS, line.parse().unwrap());
            }
            assert_eq!(E::reported(&fields, "region-1"), reported, "{said:?}");
        }
        for error in E::ALL {
            let status =
                ProxyStatus { error, details: None, next_hop: None, received_status: None };
            let mut fields = HeaderMap::new();
            status.append("a node", &mut fields);
            assert_eq!(E::reported(&fields, "a node"), Some(error));
        }
    }

    #[test]
    fn members() {
        let mut status = ProxyStatus {
            error: ProxyError::ConnectionTimeout,
            details: None,
            next_hop: None,
            received_status: None,
        };
        assert_eq!(status.value("edge-1"), "edge-1;error=connection_timeout");
        status.error = ProxyError::HttpResponseIncomplete;
        status.details = Some("12 of 40 bytes\n");
        status.next_hop = Some("origin");
        status.received_status = Some(StatusCode::OK);
        let mut fields = HeaderMap::new();
        status.append("", &mut fields);
        let wanted = "\"\";error=http_response_incomplete;received-status=200;\
                      next-hop=\"origin\";details=\"12 of 40 bytes?\"";
        assert_eq!(fields.get("proxy-status").unwrap(), wanted);
    }

    #[test]
    fn statuses() {
        assert_eq!(ProxyError::HttpResponseTimeout.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(ProxyError::ConnectionRefused.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(ProxyError::DestinationUnavailable.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
