//! What the reactive SSD is good for after a restart, and what a bad one costs.

use crate::common::{CHUNK, Edge, Item, Stage, Web, get, proxy_settings, settings, until};
use service::value::ByteSize;
use std::os::unix::fs::FileExt;

fn with_ssd(mut settings: nearcast_edge::Settings) -> nearcast_edge::Settings {
    settings.ssd = Some(ByteSize(512 << 20));
    settings
}

#[tokio::test]
async fn after_a_restart_without_origin_and_control_plane_the_ssd_serves() {
    let mut stage = Stage::with(with_ssd).await;
    let before = stage.get("v1/4.m4s").await;
    assert_eq!(before.verdict(), "origin");
    stage.edge.stop().await;
    stage.origin.stop().await;
    let again = with_ssd(settings(stage.dir.path(), &stage.origin.url));
    stage.edge = Edge::start(again).await;
    stage.edge.ssd_is(1.0).await;
    let after = stage.get("v1/4.m4s").await;
    assert!(after.verdict().starts_with("hit-"), "{}", after.verdict());
    assert_eq!(after.bytes(), before.bytes());
    assert_eq!(stage.get("v1/4.m4s").await.verdict(), "hit-memory");
    assert_eq!(stage.get("v1.m3u8").await.verdict(), "hit-memory");
    let other = stage.get("v1/0.m4s").await;
    assert_eq!((other.status.as_u16(), other.code().as_str()), (502, "origin-failed"));
    stage.edge.stop().await;
}

#[tokio::test]
async fn a_damaged_ssd_is_a_miss() {
    let mut stage = Stage::with(with_ssd).await;
    let before = stage.get("v1/4.m4s").await;
    stage.edge.stop().await;
    let mut damaged = 0;
    for entry in std::fs::read_dir(stage.dir.path().join("ssd")).unwrap() {
        let path = entry.unwrap().path();
        // What a look after the disk has just written, and may remove meanwhile.
        if path.ends_with("probe") {
            continue;
        }
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        // One byte in each half MiB: every chunk is hit.
        for at in (300_000..file.metadata().unwrap().len()).step_by(512 << 10) {
            file.write_all_at(&[0x5a], at).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    stage.edge = Edge::start(with_ssd(settings(stage.dir.path(), &stage.origin.url))).await;
    stage.edge.ssd_is(1.0).await;
    let after = stage.get("v1/4.m4s").await;
    assert_eq!(after.bytes(), before.bytes());
    assert_eq!(after.verdict(), "origin");
    stage.edge.stop().await;
}

#[tokio::test]
async fn an_unusable_ssd_leaves_an_edge_that_serves() {
    let stage = Stage::with(|settings| {
        std::fs::write(settings.data_dir.as_ref().unwrap().join("ssd"), "a file").unwrap();
        with_ssd(settings)
    })
    .await;
    assert_eq!(stage.get("v1/0.m4s").await.bytes(), &stage.film.segment("v1", 0));
    stage.edge.ssd_is(0.0).await;
}

/// A disk that is dead at a restart costs its share alone, and is known to be out of use.
#[tokio::test]
async fn a_disk_that_is_dead_at_a_restart_costs_its_share_alone_and_comes_back() {
    const PAGES: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let mut web = Web::start().await;
    let url = web.url.clone();
    let disks = [dir.path().join("disk-a"), dir.path().join("disk-b")];
    let with_disks = || {
        let mut settings = proxy_settings(dir.path(), &url, &serde_json::json!({}));
        (settings.ssd, settings.ssd_dir) = (Some(ByteSize(512 << 20)), disks.to_vec());
        settings
    };
    let start = async |heads: f64| {
        let edge = Edge::start(with_disks()).await;
        edge.disk_is(&disks[0], 1.0).await;
        until("the heads", || async {
            (edge.metric("nearcast_edge_head_rows ").await == heads).then_some(())
        })
        .await;
        edge
    };
    let page = |number: usize| format!("/page-{number}");
    // One host, whatever the port: what is stored is found by it.
    let ask = async |edge: &Edge, number: usize| {
        get(&format!("{}{}", edge.http, page(number)), &[("host", "pages.example")]).await
    };
    let edge = start(0.0).await;
    edge.disk_is(&disks[1], 1.0).await;
    for number in 0..PAGES {
        web.put(&page(number), Item::of(CHUNK));
        // Its second use makes it worth a place on disk.
        for _ in 0..2 {
            assert_eq!(ask(&edge, number).await.status, 200);
        }
    }
    edge.stop().await;
    // A folder that can't be opened, as that of a dead disk.
    let (dead, away) = (&disks[1], disks[1].with_extension("away"));
    std::fs::rename(dead, &away).unwrap();
    std::fs::write(dead, "no folder").unwrap();
    let edge = start(PAGES as f64).await;
    edge.disk_is(dead, 0.0).await;
    let mut hits = 0;
    for number in 0..PAGES {
        let answer = ask(&edge, number).await;
        assert!(answer.bytes() == &web.whole(&page(number)), "{number}");
        hits += usize::from(answer.verdict().starts_with("hit-"));
    }
    assert!((1..PAGES).contains(&hits), "{hits} of {PAGES}");
    std::fs::remove_file(dead).unwrap();
    std::fs::rename(&away, dead).unwrap();
    edge.disk_is(dead, 1.0).await;
    edge.stop().await;
    // All of it is there again, on one disk or the other.
    web.stop().await;
    let edge = start(PAGES as f64).await;
    edge.disk_is(dead, 1.0).await;
    for number in 0..PAGES {
        let answer = ask(&edge, number).await;
        assert!(answer.bytes() == &web.whole(&page(number)), "{number}");
    }
}
