//! Heads that are sound by themselves, and no answer to what was asked: such a try has failed, and
//! another origin is asked, as for any other failure.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::*;
use nearcast_upstream::{Ask, ErrorType, SiteKind};

const UNASKED: &str = "bytes 0-3/9";

fn part(range: &str) -> Vec<Step> {
    vec![send(format!("HTTP/1.1 206 X\r\n{range}Content-Length: 4\r\n\r\nevil"))]
}

fn given(range: &str) -> Vec<Step> {
    part(&format!("Content-Range: {range}\r\n"))
}

fn with(name: &'static str, value: &str) -> Ask {
    let mut ask = ask("/a");
    ask.fields.insert(name, value.parse().unwrap());
    ask
}

/// An answer, and what it is one to.
type Exchange = (Vec<Step>, fn() -> Ask);

/// What is wrong of each, and what it is an answer to.
fn table() -> Vec<Exchange> {
    let ranged = || with("range", "bytes=2-5");
    vec![
        (given(UNASKED), || ask("/a")),
        (part(""), ranged),
        (given("bytes 3-6/9"), ranged),
        (given("bytes 1-4/9"), ranged),
        (given("bytes 2-6/9"), ranged),
        // Its framing says otherwise.
        (given("bytes 2-4/9"), ranged),
        (given("bytes 2-5/4"), ranged),
        (given("bytes 3-6/9"), || with("range", "bytes=2-")),
        (status(304), || ask("/a")),
        (status(304), ranged),
        (status(304), || with("if-match", "\"e\"")),
    ]
}

#[tokio::test]
async fn what_is_no_answer_to_the_request_is_asked_of_another_origin() {
    for (n, (bad, asking)) in table().into_iter().enumerate() {
        let first = Origin::new(move |_, _| bad.clone()).await;
        let second = Origin::saying("good").await;
        let (a, b) = (first.url(), second.url());
        let text = format!("origins = [{a:?}, {{ url = {b:?}, priority = 1 }}]");
        let site = site(SiteKind::Proxy, &text);
        let answer = site.upstream.send(asking()).await.unwrap();
        assert_eq!(whole(answer).await.unwrap(), (200, "good".into()), "{n}");
        assert_eq!((first.count(), second.count()), (1, 1), "{n}");
        assert_eq!(site.metric("requests_total", &[("outcome", "wrong"), ("hop", &a)]), 1.0, "{n}");
        assert_eq!(site.metric("retries_total", &[]), 1.0, "{n}");
    }
}

/// It would say the same again.
#[tokio::test]
async fn without_another_it_is_a_fault_of_its_own_and_not_asked_again() {
    for (n, (bad, asking)) in table().into_iter().enumerate() {
        let origin = Origin::new(move |_, _| bad.clone()).await;
        let site = site(SiteKind::Proxy, &format!("origins = [{:?}]", origin.url()));
        let fault = site.upstream.send(asking()).await.unwrap_err();
        let named = (fault.error_type(), fault.status().as_u16());
        assert_eq!(named, (ErrorType::HttpProtocolError, 502), "{n}: {fault}");
        assert!(fault.to_string().contains(&origin.url()), "{n}: {fault}");
        assert_eq!(origin.count(), 1, "{n}");
    }
    let second = Origin::saying("good").await;
    let first = Origin::new(move |_, _| status(304)).await;
    let text = format!("origins = [{:?}, {:?}]\nretries = 0", first.url(), second.url());
    let site = site(SiteKind::Proxy, &text);
    let mut faults = 0;
    for object in 0..20 {
        faults += usize::from(site.upstream.send(ask_for("/a", object)).await.is_err());
    }
    assert!(faults > 0 && faults == first.count(), "no try without `retries`: {faults}");
}

/// Shorter parts, one range of several, parts to their end, and what can't be counted here.
#[tokio::test]
async fn what_may_be_answered_is_passed_on() {
    let several = || with("range", "bytes=0-1,4-7");
    let table: Vec<Exchange> = vec![
        (given("bytes 2-5/9"), || with("range", "bytes=2-8")),
        (given("bytes 2-5/*"), || with("range", "bytes=2-5")),
        (given("bytes 2-5/6"), || with("range", "bytes=2-")),
        (given("bytes 5-8/9"), || with("range", "bytes=-4")),
        (given("bytes 4-7/9"), several),
        (part("Content-Type: multipart/byteranges; boundary=x\r\n"), several),
        (given("bytes 2-5/18446744073709551615"), || with("range", "bytes=2-5")),
    ];
    for (n, (good, asking)) in table.into_iter().enumerate() {
        let origin = Origin::new(move |_, _| good.clone()).await;
        let site = site(SiteKind::Proxy, &format!("origins = [{:?}]", origin.url()));
        let answer = site.upstream.send(asking()).await;
        assert_eq!(answer.map(|answer| answer.head.status.as_u16()).unwrap(), 206, "{n}");
    }
    for name in ["if-none-match", "if-modified-since"] {
        let origin = Origin::new(|_, _| status(304)).await;
        let site = site(SiteKind::Proxy, &format!("origins = [{:?}]", origin.url()));
        let answer = site.upstream.send(with(name, "\"e\"")).await.unwrap();
        assert_eq!(answer.head.status, 304, "{name}");
    }
}
