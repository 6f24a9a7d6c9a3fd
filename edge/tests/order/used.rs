//! A data folder as an edge leaves it that was at work for long: its SSD is full, and what it
//! evicts next is of the very things that histories ask for.

use super::process::{Process, Role, url};
use super::{SSD_BYTES, THING_BYTES};
use crate::common::get;
use crate::versions::{Origin, Thing};
use std::path::Path;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// What an SSD is filled with: so large that none of it is in memory when it is asked for again.
const FILLER_BYTES: usize = 20 << 20;
/// Versions of it that fill the SSD many times.
const FILLERS_MAX: u64 = 60;

/// The folder, made when it is first wanted.
#[derive(Default)]
pub struct Used(OnceCell<TempDir>);

impl Used {
    /// Copies it. What it knows of things is of version 1, [`Thing::strong`].
    pub async fn copy(&self, to: &Path) {
        let made = self.0.get_or_init(make).await;
        copy(made.path(), to).unwrap();
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&to)?;
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

async fn make() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let things = THING_BYTES.iter().copied().chain([FILLER_BYTES]).map(Thing::strong);
    let filler = THING_BYTES.len();
    let origin = Origin::start(things.collect()).await;
    let role = Role { ssd: SSD_BYTES, ..Role::alone("edge-a", dir.path(), &origin.url) };
    let process = Process::start(&role, None).await;
    process.ssd_is_up().await;
    let place = &process.place;
    let fetch = async |number: usize| {
        let url = url(number);
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let answer = get(&format!("http://{}/{path}", place.http), &[("host", host)]).await;
        assert!(answer.body.is_ok(), "{answer:?}");
    };
    // What is evicted first is none of the things: it shows that the SSD is full.
    fetch(filler).await;
    for number in 0..filler {
        fetch(number).await;
    }
    while place.metric("nearcast_edge_ssd_evicted_blocks_total").await == 0.0 {
        assert!(origin.version(filler) < FILLERS_MAX, "the SSD is never full");
        origin.change(filler);
        let purge = serde_json::json!({ "url": url(filler) }).to_string();
        let admin = place.admin.strip_prefix("http://").unwrap();
        super::client::post(admin.parse().unwrap(), admin, "/v1/purge", &purge).await;
        // Who asks first is not let in once the SSD is almost full.
        fetch(filler).await;
        fetch(filler).await;
    }
    process.stop(|| ()).await;
    dir
}
