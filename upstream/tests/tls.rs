//! Over TLS: HTTP/2 where the server has it, trust, and whose host is shown.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::*;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use nearcast_upstream::{ErrorType, Fault, Upstream};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Log = Arc<Mutex<Vec<(Version, Option<String>, Option<String>)>>>;

/// A real hyper server behind TLS. What it has seen: version, `:authority`, `Host`.
async fn server(protocols: &[&str], names: &[&str]) -> (String, String, Log) {
    let (acceptor, ca) = acceptor(protocols, names);
    let (url, log) = serve(acceptor).await;
    (url, ca, log)
}

async fn serve(acceptor: TlsAcceptor) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let log = Log::default();
    let seen = log.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let seen = seen.clone();
                    async move { Ok::<_, Infallible>(answer(request, &seen).await) }
                });
                let server = auto::Builder::new(TokioExecutor::new());
                _ = server.serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    (url, log)
}

async fn answer(request: Request<Incoming>, seen: &Log) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let host = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
    let authority = head.uri.authority().map(ToString::to_string);
    seen.lock().unwrap().push((head.version, authority, host));
    Response::new(Full::new(body.collect().await.unwrap().to_bytes()))
}

fn site(text: &str, ca: Option<&str>) -> Upstream {
    site_that_trusts(ca, text).upstream
}

#[tokio::test]
async fn http2_is_spoken_where_the_server_has_it() {
    for (protocols, version) in
        [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11)]
    {
        let (url, ca, log) = server(protocols, &["127.0.0.1"]).await;
        let upstream = site(&format!("origins = [{url:?}]"), Some(&ca));
        let answer = upstream.send(ask("/a")).await.unwrap();
        assert_eq!(answer.head.version, version);
        assert!(answer.body.is_delimited());
        let (_, authority, host) = log.lock().unwrap()[0].clone();
        assert_eq!(authority.or(host), Some(url["https://".len()..].to_owned()));
    }
}

#[tokio::test]
async fn the_clients_host_is_passed_on_over_http2_as_well() {
    let (url, ca, log) = server(&["h2"], &["127.0.0.1"]).await;
    let upstream = site(&format!("origins = [{url:?}]\npass-host = true"), Some(&ca));
    upstream.send(ask("/a")).await.unwrap();
    assert_eq!(log.lock().unwrap()[0].1.as_deref(), Some("films.example"));
}

#[tokio::test]
async fn who_is_not_trusted_gets_no_request() {
    let (url, _, log) = server(&["h2", "http/1.1"], &["127.0.0.1"]).await;
    let (_, other, _) = server(&["h2"], &["127.0.0.1"]).await;
    let fault = site(&format!("origins = [{url:?}]"), Some(&other)).send(ask("/a")).await;
    let fault = fault.unwrap_err();
    assert_eq!(fault.error_type(), ErrorType::TlsCertificateError, "{fault}");
    assert!(fault.to_string().contains("and another's signature"), "{fault}");
    let (url, ca, named) = server(&["h2"], &["elsewhere.example"]).await;
    let fault = site(&format!("origins = [{url:?}]"), Some(&ca)).send(ask("/a")).await;
    assert_eq!(fault.unwrap_err().error_type(), ErrorType::TlsCertificateError);
    assert!(log.lock().unwrap().is_empty() && named.lock().unwrap().is_empty());
}

/// As `openssl req -x509` makes it.
fn self_signed(name: &str, ends: Option<i32>) -> (TlsAcceptor, String) {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ends.into_iter().for_each(|year| params.not_after = rcgen::date_time_ymd(year, 1, 1));
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    (acceptor_of(&["http/1.1"], made.der(), &key), made.pem())
}

#[tokio::test]
async fn a_self_signed_certificate_of_an_authority_is_trusted_where_it_is_named_itself() {
    let (own, pem) = self_signed("127.0.0.1", None);
    let (_, other) = self_signed("127.0.0.1", None);
    let (url, log) = serve(own).await;
    let text = format!("origins = [{url:?}]");
    let both = format!("{other}{pem}");
    for ca in [&pem, &both] {
        assert_eq!(site(&text, Some(ca)).send(ask("/a")).await.unwrap().head.status, 200);
    }
    assert_eq!(log.lock().unwrap().len(), 2);
    let (misnamed, misnamed_pem) = self_signed("elsewhere.example", None);
    let (expired, expired_pem) = self_signed("127.0.0.1", Some(2001));
    let (misnamed, expired) = (serve(misnamed).await.0, serve(expired).await.0);
    for (url, ca, words) in [
        (&url, &other, "is an authority's own (CA:TRUE), and not itself"),
        (&misnamed, &misnamed_pem, "not valid for name"),
        (&expired, &expired_pem, "expired"),
    ] {
        let fault = site(&format!("origins = [{url:?}]"), Some(ca)).send(ask("/a")).await;
        let fault = fault.unwrap_err();
        assert_eq!(fault.error_type(), ErrorType::TlsCertificateError, "{fault}");
        assert!(fault.to_string().contains(words), "{fault}");
        assert!(!fault.to_string().contains("OtherError"), "{fault}");
    }
    assert_eq!(log.lock().unwrap().len(), 2, "nobody else has had a request");
}

#[tokio::test]
async fn a_plain_server_is_no_tls_server() {
    let origin = Origin::saying("x").await;
    let url = origin.url().replace("http:", "https:");
    let text = format!("origins = [{url:?}]\nconnect-timeout = \"300ms\"\nretries = 0");
    let fault = site(&text, None).send(ask("/a")).await.unwrap_err();
    assert!(matches!(fault, Fault::Unavailable { .. } | Fault::TimedOut { .. }), "{fault}");
}
