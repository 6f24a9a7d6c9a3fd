use super::*;
use crate::engine::tests::{CHUNKS, own_fetch, small};
use crate::object::Object;
use crate::proxy::tests::film;
use futures::FutureExt;
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use upstream::Upstream;

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:1";

/// The rest of a chunk that left a full memory before its reader had it.
#[tokio::test]
async fn what_is_left_of_a_chunk_goes_past_memory_unless_its_origin_would_send_all() {
    let dir = tempfile::tempdir().unwrap();
    let engine = small(dir.path());
    for number in 0..CHUNKS {
        let bytes = Bytes::from(vec![0; CHUNK_BYTES as usize]);
        engine.keep(crate::engine::tests::film().key(number).unwrap(), bytes);
    }
    assert!(!engine.chunks.have_room());
    let object = film(2 * CHUNK_BYTES, NOWHERE);
    for (taken, is_unranged, goes_past) in
        [(100, false, true), (0, false, false), (100, true, false)]
    {
        if is_unranged {
            engine.unranged.set(object.body);
        }
        let (mut run, _reading) = own_fetch(&engine, &object, 0..1);
        run.go_on_after(taken);
        run.begin_past_memory(&engine).await;
        let is_passed = matches!(run.begun, Some(Begun::Passed(_)));
        assert_eq!(is_passed, goes_past, "{taken} {is_unranged}");
    }
}

/// Answers each connection with the head of 100 bytes, and no more.
async fn origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            _ = stream.read(&mut [0; 4096]).await;
            _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n").await;
            connections.push(stream);
        }
    });
    url
}

fn upstream(object: &Object) -> &Upstream {
    let Kind::Web(web) = &object.kind else { panic!("a proxy site's") };
    &web.wanted.site.upstream
}

/// A reader that goes on taking has its answer for as long as nobody else needs that one's place at
/// the origin, and for two seconds in any case.
#[tokio::test]
async fn what_goes_past_memory_makes_way_for_a_request_that_waits_for_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let engine = small(dir.path());
    let object = film(CHUNK_BYTES, &origin().await);
    let ask = || upstream::Ask::get("films.example", "/film", object.body);
    let body = upstream(&object).send(ask()).await.unwrap().body;
    let (mut run, reading) = own_fetch(&engine, &object, 0..1);
    tokio::time::pause();
    run.begin_answer();
    assert!(run.pass_from(0, None));
    let mut exit = reading.passed(0, 0).unwrap();
    let mut at = 0;
    let mut passes = async |run: &mut Run| {
        let goes_on = run.pass(&engine, &body, Bytes::from_static(b"piece")).await;
        let came = poll_fn(|cx| exit.poll(cx, at, 100)).now_or_never().flatten();
        assert_eq!(came.unwrap(), "piece");
        at += 5;
        goes_on
    };
    assert!(passes(&mut run).await.unwrap());
    let waits = upstream(&object).clone();
    let waits = tokio::spawn({
        let ask = ask();
        async move { waits.send(ask).await.map(|answer| answer.head.status) }
    });
    while !body.yields() {
        tokio::task::yield_now().await;
    }
    assert!(passes(&mut run).await.unwrap(), "it has just begun");
    tokio::time::advance(PAUSE_MAX + Duration::from_millis(1)).await;
    tokio::time::resume();
    assert!(!passes(&mut run).await.unwrap());
    drop(body);
    assert_eq!(waits.await.unwrap().unwrap(), 200);
}
