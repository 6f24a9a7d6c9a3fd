//! Stories of requests that mean the same whatever protocol they come by: to the key, to what
//! selects a variant, and to the origin.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use bytes::Bytes;
use common::{Answer, Item, Proxy, send_over};
use http::{Method, Request};
use http_body_util::Empty;

const PROTOCOLS: [&str; 3] = ["http/1.1", "h2", "h3"];
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

/// By all methods, behind what the client itself says, which may name the field as one of its
/// connection's; and what it is told makes no copy of its own, nor one for others.
#[tokio::test]
async fn the_origin_is_told_who_asks() {
    let told = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2")];
    for protocol in PROTOCOLS {
        let proxy = Proxy::new().await;
        proxy.web.put(PAGE, Item::of(100));
        for (method, fields, expected) in [
            (Method::GET, &[][..], "127.0.0.1"),
            (Method::POST, &[], "127.0.0.1"),
            (Method::GET, &told, "192.0.2.1, 192.0.2.2, 127.0.0.1"),
            (Method::POST, &told, "192.0.2.1, 192.0.2.2, 127.0.0.1"),
        ] {
            ask(&proxy, protocol, (method.clone(), PAGE), fields).await;
            let asked = proxy.web.asked_for(PAGE).pop().unwrap();
            let values: Vec<_> = asked.fields.get_all("x-forwarded-for").iter().collect();
            assert_eq!(values, [expected], "{protocol} {method}");
        }
        let got = ask(&proxy, protocol, (Method::GET, PAGE), &[]).await;
        for fields in [&[][..], &told] {
            let again = ask(&proxy, protocol, (Method::GET, PAGE), fields).await;
            assert_eq!((got.verdict(), again.verdict()), ("origin", "hit-memory"), "{protocol}");
        }
        proxy.web.put("/own", Item::of(100).field("vary", "accept, x-forwarded-for"));
        for _ in 0..2 {
            let own = ask(&proxy, protocol, (Method::GET, "/own"), &[]).await;
            assert_eq!((own.status.as_u16(), own.verdict()), (200, "bypass"), "{protocol}");
        }
    }
    let proxy = Proxy::new().await;
    proxy.web.put(PAGE, Item::of(100));
    let fields = [told[0], ("connection", "x-forwarded-for")];
    ask(&proxy, "http/1.1", (Method::GET, PAGE), &fields).await;
    let asked = proxy.web.asked_for(PAGE).pop().unwrap();
    assert_eq!(asked.field("x-forwarded-for"), "192.0.2.1, 127.0.0.1");
}

/// As in a path: what a URL can't hold is escaped (RFC 3986 section 2.1), in the key and for the
/// origin.
#[tokio::test]
async fn a_query_in_utf_8_is_the_escaped_one() {
    for protocol in PROTOCOLS {
        let proxy = Proxy::with(serde_json::json!({ "query": { "drop": ["%C3%A4"] } })).await;
        proxy.web.put(PAGE, Item::of(100));
        for (target, verdict) in [
            ("/page?q=\u{e4}\u{20ac}%c3&\u{e4}=1", "origin"),
            ("/page?q=%C3%A4%E2%82%AC%c3", "hit-memory"),
            ("/page?q=\u{e4}%E2%82%AC%c3", "hit-memory"),
        ] {
            let answer = ask(&proxy, protocol, (Method::GET, target), &[]).await;
            assert_eq!(answer.verdict(), verdict, "{protocol} {target} {answer:?}");
        }
        let target = "/page?q=\u{e4}&\u{e4}=1";
        assert_eq!(ask(&proxy, protocol, (Method::POST, target), &[]).await.status, 204);
        let asked: Vec<_> = proxy.web.asked().into_iter().map(|asked| asked.target).collect();
        assert_eq!(asked, ["/page?q=%C3%A4%E2%82%AC%c3", "/page?q=%C3%A4&%C3%A4=1"], "{protocol}");
    }
}

/// RFC 9110 section 7.4. Also where the same is a hit for who names it as it is.
#[tokio::test]
async fn targets_of_another_scheme_are_refused_by_name() {
    let proxy = Proxy::new().await;
    proxy.web.put(PAGE, Item::of(100));
    let host = proxy.edge.https.strip_prefix("https://").unwrap();
    for protocol in PROTOCOLS {
        for scheme in ["https", "ftp", "https", "gopher", "httpss"] {
            let target = format!("{scheme}://{host}{PAGE}");
            let answer = ask(&proxy, protocol, (Method::GET, &target), &[]).await;
            if scheme == "https" {
                assert_eq!(answer.status, 200, "{protocol}");
            } else {
                let told = (answer.status.as_u16(), answer.code());
                assert_eq!(told, (421, "target-scheme".to_owned()), "{protocol} {scheme}");
            }
        }
    }
}
