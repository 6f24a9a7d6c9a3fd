//! Stories of requests that mean the same whatever protocol they come by: to the key, to what
//! selects a variant, and to the origin.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use bytes::Bytes;
use common::{Answer, Item, Proxy, send_over};
use http::{Method, Request};
use http_body_util::Empty;

const PAGE: &str = "/page";

/// A request of the edge's own name; a target may be given whole.
async fn ask(
    proxy: &Proxy,
    protocol: &str,
    (method, target): (Method, &str),
    fields: &[(&str, &str)],
) -> Answer {
    let host = proxy.edge.https.strip_prefix("https://").unwrap();
    let certificate = proxy.edge.dir.join("tls/cert.pem");
    let mut request = Request::builder().method(method);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request = match protocol {
        "http/1.1" => request.header("host", host).uri(target),
        _ if target.starts_with('/') => request.uri(format!("https://{host}{target}")),
        _ => request.uri(target),
    };
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    send_over(protocol, request, &certificate, &proxy.edge.https).await
}

/// RFC 9113 section 8.2.3, RFC 9114 section 4.2.1.
#[tokio::test]
async fn cookies_in_several_fields_are_one_to_the_origin_and_to_who_selects_by_them() {
    let crumbs = [("cookie", "a=1"), ("x-a", "b"), ("cookie", "b=2"), ("cookie", "c=3; d=4")];
    let whole = [("cookie", "a=1; b=2; c=3; d=4")];
    for protocol in ["h2", "h3"] {
        let proxy = Proxy::new().await;
        proxy.web.put(PAGE, Item::of(100).vary("cookie"));
        for method in [Method::GET, Method::POST] {
            ask(&proxy, protocol, (method.clone(), PAGE), &crumbs).await;
            let asked = proxy.web.asked_for(PAGE).pop().unwrap();
            let cookies: Vec<_> = asked.fields.get_all("cookie").iter().collect();
            assert_eq!(cookies, ["a=1; b=2; c=3; d=4"], "{protocol} {method}");
        }
        // The POST ended what was stored.
        for (number, (by, fields)) in
            [(protocol, &crumbs[..]), ("http/1.1", &whole), ("h2", &whole), ("h3", &crumbs)]
                .into_iter()
                .enumerate()
        {
            let answer = ask(&proxy, by, (Method::GET, PAGE), fields).await;
            let expected = if number == 0 { "origin" } else { "hit-memory" };
            assert_eq!(answer.verdict(), expected, "{protocol}, then {by}");
        }
    }
}
