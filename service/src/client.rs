//! A small HTTP client for the control channel: JSON over HTTP/1.1 or 2, with a deadline, a
//! bound on the answer and a bearer credential that no error repeats.

use crate::Error as StartError;
use crate::pem;
use crate::trust::{self, Named};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client as Pool, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// A JSON answer larger than this is refused.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How much of an error's body is shown.
const ERROR_CHARS_MAX: usize = 300;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error.
    #[error("{url} answered {status}: {body}")]
    Status {
        /// Without credentials.
        url: String,
        /// Its status.
        status: StatusCode,
        /// The start of what it said.
        body: String,
    },
    /// No answer in time.
    #[error("{url} did not answer within {limit:?}")]
    TimedOut {
        /// Without credentials.
        url: String,
        /// The deadline.
        limit: Duration,
    },
    /// Not reachable.
    #[error("{url} can't be reached: {reason}")]
    Unavailable {
        /// Without credentials.
        url: String,
        /// Why.
        reason: String,
    },
    /// It answered something else than the JSON that was expected.
    #[error("{url} answered {status} with something unexpected: {reason}")]
    BadBody {
        /// Without credentials.
        url: String,
        /// Its status.
        status: StatusCode,
        /// What did not fit.
        reason: String,
    },
    /// The URL, or the request, is not valid.
    #[error("{url}: {reason}")]
    BadRequest {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// A pool of connections with a deadline a call. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    limit: Duration,
    bearer: Option<HeaderValue>,
}

/// Connects over plain TCP or TLS (aws-lc-rs), HTTP/1.1 or 2. A server is trusted by the
/// system's roots, or by those in `ca_pem` alone where that is given: what these sign, and they
/// themselves.
///
/// # Errors
/// [`StartError::Tls`] when `ca_pem` holds no certificate.
pub fn connector(ca_pem: Option<&[u8]>) -> Result<HttpsConnector<HttpConnector>, StartError> {
    let tls = |error: rustls::Error| StartError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(tls)?;
    let config = match ca_pem {
        None => match builder.clone().with_native_roots() {
            Ok(config) => config.with_no_client_auth(),
            // A machine without root certificates can still talk plain HTTP.
            Err(_) => {
                builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
            }
        },
        Some(text) => {
            let named: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
            let named = named.map_err(|error| {
                StartError::Tls(format!("the CA's PEM: {}", pem::wrong(&error, "a certificate")))
            })?;
            if named.is_empty() {
                return Err(StartError::Tls("the CA's PEM holds no certificate".to_owned()));
            }
            let verifier = Arc::new(Named::new(named, provider).map_err(tls)?);
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .build())
}

impl Client {
    /// A client whose calls take `limit` at most and carry `bearer`.
    ///
    /// # Errors
    /// [`StartError::Tls`] for a bad `ca_pem` or a credential that no header can hold.
    pub fn new(
        limit: Duration,
        bearer: Option<String>,
        ca_pem: Option<&[u8]>,
    ) -> Result<Self, StartError> {
        let bearer = bearer
            .map(|secret| {
                let mut value = HeaderValue::try_from(format!("Bearer {}", secret.trim()))
                    .map_err(|_| StartError::Tls("the credential holds odd characters".into()))?;
                value.set_sensitive(true);
                Ok::<_, StartError>(value)
            })
            .transpose()?;
        let pool = Pool::builder(TokioExecutor::new()).build(connector(ca_pem)?);
        Ok(Self { pool, limit, bearer })
    }

    /// Sends a request as it is (plus the credential) and returns the head of the answer,
    /// whatever its status. The deadline covers the head alone.
    ///
    /// # Errors
    /// [`Error::TimedOut`], [`Error::Unavailable`].
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        let url = shown(request.uri());
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(header::AUTHORIZATION, bearer.clone());
        }
        match tokio::time::timeout(self.limit, self.pool.request(request)).await {
            Err(_) => Err(Error::TimedOut { url, limit: self.limit }),
            Ok(Err(error)) => Err(Error::Unavailable { url, reason: chain(&error) }),
            Ok(Ok(response)) => Ok(response),
        }
    }

    /// `GET url`, and its answer as JSON.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn get_json<T: DeserializeOwned>(&self, url: &str) -> Result<T, Error> {
        from_json(url, self.call(Method::GET, url, None).await?)
    }

    /// `POST url` with a JSON body, and its answer as JSON.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn post_json<B: Serialize, T: DeserializeOwned>(
        &self,
        url: &str,
        body: &B,
    ) -> Result<T, Error> {
        from_json(url, self.call(Method::POST, url, Some(to_json(url, body)?)).await?)
    }

    /// Sends a JSON body by `method`, ignoring what a success answers.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn send_json<B: Serialize>(
        &self,
        method: Method,
        url: &str,
        body: &B,
    ) -> Result<(), Error> {
        self.call(method, url, Some(to_json(url, body)?)).await.map(|_| ())
    }

    /// The whole exchange, within the deadline: a success with its body.
    async fn call(
        &self,
        method: Method,
        url: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Bytes), Error> {
        let bad = |reason: String| Error::BadRequest { url: url.to_owned(), reason };
        let mut request = Request::builder().method(method).uri(url);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| bad(error.to_string()))?;
        let shown = shown(request.uri());
        let exchange = async {
            let (head, body) = self.send(request).await?.into_parts();
            let (url, status) = (shown.clone(), head.status);
            let broken = |reason: String| Error::BadBody { url, status, reason };
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| broken(error.to_string()))?;
            Ok((head.status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(self.limit, exchange)
            .await
            .map_err(|_| Error::TimedOut { url: shown.clone(), limit: self.limit })??;
        if status.is_success() {
            return Ok((status, body));
        }
        let body = String::from_utf8_lossy(&body).chars().take(ERROR_CHARS_MAX).collect();
        Err(Error::Status { url: shown, status, body })
    }
}

/// A URL as it may be logged: a play token in its path is left out.
fn shown(uri: &http::Uri) -> String {
    let (scheme, authority) = (uri.scheme_str().unwrap_or("http"), uri.authority());
    let host = authority.map_or("", |authority| authority.host());
    let port = authority.and_then(http::uri::Authority::port_u16);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let shown_part = |part: &str| if part.starts_with('~') { "~".into() } else { part.to_owned() };
    let path: Vec<String> = uri.path().split('/').map(shown_part).collect();
    format!("{scheme}://{host}{port}{}", path.join("/"))
}

/// An error with its causes, outermost first.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {}", trust::said(error));
        source = error.source();
    }
    text
}

fn to_json(url: &str, body: &impl Serialize) -> Result<Bytes, Error> {
    let bad = |error: serde_json::Error| Error::BadRequest {
        url: url.to_owned(),
        reason: error.to_string(),
    };
    serde_json::to_vec(body).map(Bytes::from).map_err(bad)
}

fn from_json<T: DeserializeOwned>(
    url: &str,
    (status, body): (StatusCode, Bytes),
) -> Result<T, Error> {
    let bad = |error: serde_json::Error| Error::BadBody {
        url: url.to_owned(),
        status,
        reason: error.to_string(),
    };
    serde_json::from_slice(&body).map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_holds_no_token_and_no_query() {
        let uri = "http://user:pass@127.0.0.1:80/v1/~secret/t/film?key=secret".parse().unwrap();
        assert_eq!(shown(&uri), "http://127.0.0.1:80/v1/~/t/film");
    }

    #[tokio::test]
    async fn an_error_names_the_server_and_what_it_said() {
        let listener = crate::listen::bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let addr = listener.local_addr().unwrap();
        let router = axum::Router::new()
            .route("/v1/x", axum::routing::get(async || (StatusCode::FORBIDDEN, "not yours")));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let client = Client::new(Duration::from_secs(5), Some("s3cret".into()), None).unwrap();
        let error = client.get_json::<u8>(&format!("http://{addr}/v1/x")).await.unwrap_err();
        let wanted = format!("http://{addr}/v1/x answered 403 Forbidden: not yours");
        assert_eq!(error.to_string(), wanted);
    }
}
