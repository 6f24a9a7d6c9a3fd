//! Planned disks on real filesystems: full, not mounted, read-only.

use crate::common::{Edge, Item, Stage, Web, get, keep_view, proxy_settings, settings, until};
use crate::{Control, MIB, comes_back, complete, is, origin_bytes, plan_of, planned, verdict_of};
use model::FillPlan;
use nearcast_edge::Settings;
use service::value::ByteSize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A filesystem in memory, unmounted when dropped wherever it is.
struct Tmpfs(Vec<PathBuf>);

impl Tmpfs {
    fn mount(dir: &Path, mib: usize) -> Option<Self> {
        let options = format!("size={mib}m");
        if !run(&["mount", "-t", "tmpfs", "-o", &options, "none"], dir) {
            crate::fuse::skipped("tmpfs can't be mounted");
            return None;
        }
        Some(Self(vec![dir.into()]))
    }

    fn bind(&mut self, dir: &Path) {
        let from = self.0[0].to_str().unwrap();
        assert!(run(&["mount", "--bind", from], dir));
        self.0.push(dir.into());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        while let Some(dir) = self.0.pop() {
            run(&["umount", "-l"], &dir);
        }
    }
}

fn run(command: &[&str], dir: &Path) -> bool {
    let output = Command::new(command[0]).args(&command[1..]).arg(dir).output();
    let done = output.as_ref().is_ok_and(|output| output.status.success());
    if !done {
        println!("{command:?}: {output:?}");
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_planned_disk_serves_what_it_has_and_asks_the_origin_for_no_more() {
    let mut disk = None;
    let (stage, control) = planned(|data| disk = Tmpfs::mount(&data.join("plan"), 12)).await;
    let Some(disk) = disk else { return };
    is(&stage, "writable", 0.0).await;
    assert_eq!(verdict_of(&stage, 0).await, "hit-plan");
    let present = stage.edge.metric("nearcast_edge_plan_present_bytes").await as usize;
    // What the edge's own files need is left free.
    assert!((9 * MIB..12 * MIB).contains(&present), "{present} bytes");
    assert_eq!(control.last_beat().unwrap().plan_complete, None);
    // All that was fetched is here; the index beside it.
    let index = stage.film.encoded.len();
    assert_eq!(origin_bytes(&stage).await, present + index);
    for mib in [20, 100] {
        let resize = format!("remount,size={mib}m");
        assert!(run(&["mount", "-o", &resize], &disk.0[0]));
        until("more of the plan", || async {
            let now = stage.edge.metric("nearcast_edge_plan_present_bytes").await as usize;
            (now > present + (mib - 20) * MIB / 4).then_some(())
        })
        .await;
    }
    complete(&control).await;
    is(&stage, "writable", 1.0).await;
    assert_eq!(origin_bytes(&stage).await, stage.film.index.bytes() as usize + index);
    stage.edge.stop().await;
}

/// What heads and purges need is left to them, also by files that only grow to their size.
#[tokio::test(flavor = "multi_thread")]
async fn heads_are_written_beside_a_plan_and_an_ssd_that_fill_the_data_folders_disk() {
    const HEADS: usize = 400;
    let data = tempfile::tempdir().unwrap();
    let Some(_disk) = Tmpfs::mount(data.path(), 512) else { return };
    let web = Web::start().await;
    web.put("/a", Item::of(100));
    let signer = token::Signer::generate().unwrap();
    let control = Control::start(crate::view(&signer)).await;
    keep_view(data.path(), &crate::view(&signer));
    let sites = proxy_settings(data.path(), &web.url, &serde_json::json!({})).sites;
    let url = control.url.clone();
    let stage = Stage::with(|settings| Settings {
        data_dir: Some(data.path().to_owned()),
        announce: Some(data.path().join("announced.json")),
        ssd: Some(ByteSize(4 << 30)),
        control_plane: Some(url),
        sites,
        ..settings
    })
    .await;
    stage.edge.ssd_is(1.0).await;
    control.shared.lock().unwrap().plan = Some(plan_of(&stage.film));
    is(&stage, "writable", 0.0).await;
    // As far as the SSD's files may grow.
    for file in std::fs::read_dir(data.path().join("ssd")).unwrap() {
        let file = std::fs::OpenOptions::new().write(true).open(file.unwrap().path()).unwrap();
        file.write_all_at(&vec![0; file.metadata().unwrap().len() as usize], 0).unwrap();
    }
    for number in 0..HEADS {
        let answer = get(&format!("{}/a?x={number}", stage.edge.http), &[]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let rows = "nearcast_edge_head_rows";
    until("heads on disk", async || (stage.edge.metric(rows).await >= HEADS as f64).then_some(()))
        .await;
    let unwritten = "nearcast_edge_heads_unwritten_total{reason=\"no-room\"}";
    assert_eq!(stage.edge.metric(unwritten).await, 0.0);
    stage.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_below_a_planned_disk_that_is_not_mounted_stays_empty() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut disk) = Tmpfs::mount(dir.path(), 100) else { return };
    let (stage, control) = planned(|data| disk.bind(&data.join("plan"))).await;
    complete(&control).await;
    let (plan, before) = (stage.edge.dir.join("plan"), origin_bytes(&stage).await);
    assert!(run(&["umount", "-l"], &plan));
    is(&stage, "up", 0.0).await;
    assert_eq!(verdict_of(&stage, 0).await, "origin");
    disk.0.pop();
    assert_eq!(std::fs::read_dir(&plan).unwrap().count(), 0);
    disk.bind(&plan);
    comes_back(&stage, 1).await;
    assert_eq!(origin_bytes(&stage).await - before, MIB);
    complete(&control).await;
    stage.edge.stop().await;
    drop(disk);
    assert_eq!(std::fs::read_dir(&plan).unwrap().count(), 0);
}

/// Linux remounts a filesystem that it found an error in like that.
#[tokio::test(flavor = "multi_thread")]
async fn a_planned_disk_that_becomes_read_only_is_read_and_filled_when_it_takes_writes_again() {
    const LOST: usize = 30;
    let dir = tempfile::tempdir().unwrap();
    let Some(mut disk) = Tmpfs::mount(dir.path(), 100) else { return };
    let (stage, control) = planned(|data| disk.bind(&data.join("plan"))).await;
    complete(&control).await;
    let (plan, before) = (stage.edge.dir.join("plan"), origin_bytes(&stage).await);
    assert!(run(&["umount", "-l"], &plan));
    is(&stage, "up", 0.0).await;
    disk.0.pop();
    let file = dir.path().join(format!("film/{}/v1.mp4", stage.film.version));
    let zero = |path: &Path, at: usize, bytes: usize| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&vec![0; bytes], at as u64).unwrap();
    };
    zero(&file, LOST * MIB, MIB);
    zero(&file.with_extension("mp4.have"), 16 + 8 * LOST, 8);
    // Busy until the edge has closed its files.
    until("a read-only disk", || async {
        run(&["mount", "-o", "remount,ro"], dir.path()).then_some(())
    })
    .await;
    disk.bind(&plan);
    comes_back(&stage, 0).await;
    is(&stage, "writable", 0.0).await;
    assert_eq!(control.last_beat().unwrap().plan_complete, None);
    assert_eq!(origin_bytes(&stage).await, before);
    assert!(run(&["mount", "-o", "remount,rw"], dir.path()));
    assert!(run(&["mount", "-o", "remount,bind,rw"], &plan));
    complete(&control).await;
    is(&stage, "writable", 1.0).await;
    assert_eq!(origin_bytes(&stage).await - before, MIB);
    assert_eq!(std::fs::read(&file).unwrap(), stage.film.files["v1.mp4"]);
    stage.edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_here_is_complete_on_a_read_only_disk_and_one_that_is_not_stored_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut disk) = Tmpfs::mount(dir.path(), 100) else { return };
    let (mut stage, control) = planned(|data| disk.bind(&data.join("plan"))).await;
    complete(&control).await;
    stage.edge.stop().await;
    let plan = stage.dir.path().join("plan");
    assert!(run(&["mount", "-o", "remount,bind,ro"], &plan));
    control.shared.lock().unwrap().beats.clear();
    let mut again = settings(stage.dir.path(), &stage.origin.url);
    again.control_plane = Some(control.url.clone());
    stage.edge = Edge::start(again).await;
    complete(&control).await;

    let newer = FillPlan { number: 2, ..plan_of(&stage.film) };
    control.shared.lock().unwrap().plan = Some(newer);
    is(&stage, "writable", 0.0).await;
    assert_eq!(verdict_of(&stage, 0).await, "hit-plan");
    assert!(run(&["mount", "-o", "remount,bind,rw"], &plan));
    until("the newer plan", || async {
        (control.last_beat()?.plan_complete == Some(2)).then_some(())
    })
    .await;
    is(&stage, "writable", 1.0).await;
    assert_eq!(origin_bytes(&stage).await, 0);
    stage.edge.stop().await;
}
