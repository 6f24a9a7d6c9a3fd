//! Ingest of real files into real stores, and what goes wrong there.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use model::TitleIndex;
use model::index::INDEX_BYTES_MAX;
use model::publish::PublishRecord;
use nearcast_origin::Error;
use nearcast_origin::ingest::{Config, Report, ingest};
use service::Shutdown;
use std::path::{Path, PathBuf};
use std::process::Command;
use store::Store;
use tempfile::TempDir;

/// A folder with a store and a work folder.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        Self(dir)
    }

    fn config(&self, files: Vec<PathBuf>) -> Config {
        Config {
            store: format!("dir:{}", self.0.path().join("store").display()),
            title: "tide".parse().unwrap(),
            name: "Tide".to_owned(),
            segment_target_ms: 4000,
            ladder: false,
            verify: false,
            json: false,
            work_dir: Some(self.0.path().join("work")),
            files,
        }
    }

    fn work_is_empty(&self) -> bool {
        std::fs::read_dir(self.0.path().join("work")).unwrap().next().is_none()
    }

    async fn refused(&self, files: Vec<PathBuf>) -> String {
        let error = ingest(&self.config(files), &Shutdown::new()).await.unwrap_err();
        assert!(!self.0.path().join("store").exists(), "something was stored: {error}");
        error.to_string()
    }
}

fn tide(names: &[&str]) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/tide");
    names.iter().map(|name| folder.join(name)).collect()
}

fn all() -> Vec<PathBuf> {
    tide(&["270p.mp4", "540p.mp4", "eng.mp4", "fra.mp4", "subs.en.vtt"])
}

fn uploaded(report: &Report) -> Vec<&str> {
    let files = report.files.iter().filter(|file| file.uploaded);
    files.map(|file| file.name.as_str()).collect()
}

async fn run(config: &Config) -> Report {
    ingest(config, &Shutdown::new()).await.unwrap()
}

/// Checks every chunk of every file against the index, the index against the version, and
/// the record against both.
async fn verify(config: &Config, report: &Report) {
    let store = Store::open(&config.store).unwrap();
    let folder = format!("titles/tide/{}", report.version);
    let encoded = store.get(&format!("{folder}/index"), INDEX_BYTES_MAX).await.unwrap();
    assert_eq!(model::Version::of_index(&encoded), report.version);
    let index = TitleIndex::decode(&encoded).unwrap();
    for track in &index.tracks {
        let key = format!("{folder}/{}", track.file_name());
        let bytes = store.get(&key, usize::MAX).await.unwrap();
        assert_eq!(bytes.len() as u64, track.facts.file_bytes);
        for (n, chunk) in bytes.chunks(1 << 20).enumerate() {
            assert!(track.chunk_is_whole(n as u64, chunk), "{key}, chunk {n}");
        }
        let key = format!("{folder}/{}.tree", track.facts.id);
        let mut hasher = model::tree::Hasher::default();
        hasher.update(&bytes);
        assert!(store.get(&key, usize::MAX).await.unwrap() == hasher.finish().tree, "{key}");
    }
    let record = store.get(&format!("published/tide/{}", report.version), 1 << 20).await.unwrap();
    let record: PublishRecord = serde_json::from_slice(&record).unwrap();
    assert_eq!((record.version, record.duration_ms), (report.version, index.duration_ms()));
    assert_eq!(record.bytes(), index.bytes());
    assert_eq!(store.list("").await.unwrap().len(), 2 * index.tracks.len() + 2);
}

#[tokio::test]
async fn a_title_is_published_once_and_uploaded_once() {
    let place = Place::new();
    let config = place.config(all());
    let first = run(&config).await;
    assert!(!first.already_published);
    assert_eq!(uploaded(&first).len(), 5);
    assert!(first.segments > 5 && first.duration_ms > 29_000, "{first}");
    verify(&config, &first).await;
    assert!(place.work_is_empty());
    let again = run(&config).await;
    assert_eq!((again.version, again.already_published), (first.version, true));
    assert_eq!(uploaded(&again), [""; 0]);
    // Another segment length is another version beside it.
    let other = run(&Config { segment_target_ms: 2000, ..config }).await;
    assert_ne!(other.version, first.version);
}

#[tokio::test]
async fn what_half_an_upload_left_is_kept_and_the_rest_uploaded() {
    let place = Place::new();
    let config = place.config(all());
    let first = run(&config).await;
    // As a kill leaves it: no record, a file missing; and one that somebody cut.
    let store = place.0.path().join("store");
    let folder = store.join(format!("titles/tide/{}", first.version));
    std::fs::remove_file(store.join(format!("published/tide/{}", first.version))).unwrap();
    std::fs::remove_file(folder.join(&first.files[1].name)).unwrap();
    std::fs::write(folder.join(&first.files[3].name), "cut").unwrap();
    let again = run(&config).await;
    assert_eq!((again.version, again.already_published), (first.version, false));
    assert_eq!(uploaded(&again), [&first.files[1].name, &first.files[3].name]);
    verify(&config, &again).await;
}

/// The record that plays: the newest.
async fn playing(config: &Config) -> PublishRecord {
    let store = Store::open(&config.store).unwrap();
    let mut records = Vec::new();
    for entry in store.list("published/tide/").await.unwrap() {
        let bytes = store.get(&entry.key, 1 << 20).await.unwrap();
        records.push(serde_json::from_slice::<PublishRecord>(&bytes).unwrap());
    }
    records.into_iter().max_by_key(|record| record.published_at_ms).unwrap()
}

#[tokio::test]
async fn an_older_cut_or_a_new_name_is_published_again() {
    let place = Place::new();
    let config = place.config(all());
    let first = run(&config).await;
    let other = run(&Config { segment_target_ms: 2000, ..config.clone() }).await;
    assert_eq!(playing(&config).await.version, other.version);
    let back = run(&config).await;
    assert!(!back.already_published && uploaded(&back).is_empty());
    assert_eq!(playing(&config).await.version, first.version);
    run(&Config { name: "High tide".to_owned(), ..config.clone() }).await;
    assert_eq!(playing(&config).await.name, "High tide");
}

#[tokio::test]
async fn damaged_bytes_are_found_and_replaced_by_verify() {
    let place = Place::new();
    let config = place.config(all());
    let first = run(&config).await;
    let name = &first.files[2].name;
    let path = place.0.path().join(format!("store/titles/tide/{}/{name}", first.version));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let again = run(&Config { verify: true, ..config.clone() }).await;
    assert_eq!(uploaded(&again), [name]);
    verify(&config, &again).await;
}

/// As one that was ingested before there were such files.
#[tokio::test]
async fn a_title_without_tree_files_is_given_them() {
    let place = Place::new();
    let config = place.config(all());
    let first = run(&config).await;
    let folder = place.0.path().join(format!("store/titles/tide/{}", first.version));
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "tree") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let again = run(&config).await;
    assert!(again.already_published && uploaded(&again).is_empty());
    verify(&config, &again).await;
}

#[tokio::test]
async fn a_stop_publishes_nothing_and_the_next_run_goes_on() {
    let place = Place::new();
    let config = place.config(all());
    let stop = Shutdown::new();
    stop.trigger();
    let error = ingest(&config, &stop).await.unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    assert!(error.to_string().contains("run the same command again"));
    assert!(!place.0.path().join("store/published").exists());
    verify(&config, &run(&config).await).await;
}

#[tokio::test]
async fn two_at_once_on_the_same_files_do_not_mix() {
    let place = Place::new();
    let config = place.config(all());
    let (one, two) = (Shutdown::new(), Shutdown::new());
    let (one, two) = tokio::join!(ingest(&config, &one), ingest(&config, &two));
    let (done, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    verify(&config, &done.unwrap()).await;
    // Where the first was through before the second looked, it has nothing to do.
    match refused {
        Ok(second) => assert!(second.already_published),
        Err(error) => assert!(matches!(error, Error::Busy { .. }), "{error}"),
    }
}

#[tokio::test]
async fn input_that_can_not_be_used_is_named_and_nothing_is_stored() {
    let place = Place::new();
    let dir = place.0.path();
    let whole = std::fs::read(&tide(&["540p.mp4"])[0]).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        vec![path]
    };
    let error = place.refused(vec![dir.join("absent.mp4")]).await;
    assert!(error.contains("absent.mp4: No such file"), "{error}");
    let error = place.refused(vec![dir.to_owned()]).await;
    assert!(error.contains(&dir.display().to_string()), "{error}");
    let error = place.refused(file("empty.mp4", b"")).await;
    assert!(error.contains("empty.mp4: empty"), "{error}");
    let error = place.refused(file("cut.mp4", &whole[..whole.len() / 2])).await;
    assert!(error.contains("cut.mp4: truncated"), "{error}");
    let error = place.refused(file("film.mkv", b"\x1a\x45\xdf\xa3 and so on, no MP4")).await;
    assert!(error.contains("film.mkv: ") && error.contains("accepted: "), "{error}");
    let error = place.refused(file("photo.mp4", &[0xff; 5000])).await;
    assert!(error.contains("photo.mp4: "), "{error}");
    let error = place.refused(file("subs.vtt", b"1\n00:00 --> 00:01\nHello\n")).await;
    assert!(error.contains("subs.vtt"), "{error}");
    let error = place.refused(tide(&["eng.mp4"])).await;
    assert!(error.contains("eng.mp4: no video track"), "{error}");
}

#[tokio::test]
async fn a_store_that_can_not_be_written_is_named() {
    let place = Place::new();
    std::fs::write(place.0.path().join("file"), "a file").unwrap();
    let blocked = place.0.path().join("file").display().to_string();
    for (store, wanted) in [
        (format!("dir:{blocked}"), "can't be used"),
        (format!("dir:{blocked}/below"), "can't be used"),
        ("dir:/no/such/parent/store".to_owned(), "can't be used"),
        ("ftp://films".to_owned(), "is not valid: expected dir:PATH"),
    ] {
        let config = Config { store: store.clone(), ..place.config(all()) };
        let error = ingest(&config, &Shutdown::new()).await.unwrap_err().to_string();
        assert!(error.contains(&store) && error.contains(wanted), "{error}");
    }
}

/// Runs an ignored test of this binary with a small file system of its own at `$MOUNT`.
fn on_a_mount(inner: &str) {
    let place = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=600k none \"$MOUNT\" && \
                  exec \"$TEST\" --exact \"$INNER\" --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .env("MOUNT", place.path())
        .env("TEST", std::env::current_exe().unwrap())
        .env("INNER", inner)
        .output()
        .expect("unshare is part of util-linux");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{complained}");
}

fn remount(mount: &Path, options: &str) {
    let options = format!("remount,{options}");
    assert!(Command::new("mount").args(["-o", &options]).arg(mount).status().unwrap().success());
}

#[test]
fn a_full_and_a_read_only_store_lose_nothing() {
    on_a_mount("on_a_mount_that_fills_up");
}

#[tokio::test]
#[ignore = "run by a_full_and_a_read_only_store_lose_nothing"]
async fn on_a_mount_that_fills_up() {
    let mount = PathBuf::from(std::env::var_os("MOUNT").expect("run by another test"));
    let place = Place::new();
    let store = format!("dir:{}", mount.join("store").display());
    let config = Config { store, ..place.config(all()) };
    let error = ingest(&config, &Shutdown::new()).await.unwrap_err();
    assert!(matches!(error, Error::Store(store::Error::Full { .. })), "{error}");
    let open = Store::open(&config.store).unwrap();
    let mut kept = open.list("").await.unwrap();
    assert!(!kept.is_empty() && kept.iter().all(|entry| entry.key.starts_with("titles/")));
    kept.retain(|entry| !entry.key.ends_with(".tree"));

    remount(&mount, "ro,size=10m");
    let error = ingest(&config, &Shutdown::new()).await.unwrap_err();
    assert!(matches!(error, Error::Store(store::Error::ReadOnly { .. })), "{error}");

    remount(&mount, "rw,size=10m");
    let report = run(&config).await;
    assert_eq!(uploaded(&report).len(), 5 - kept.len(), "{report}");
    verify(&config, &report).await;
}

#[tokio::test]
async fn a_ladder_is_made_by_ffmpeg_from_one_file() {
    let place = Place::new();
    let film = place.0.path().join("film.mp4");
    let args = "-nostdin -v error -f lavfi -i testsrc2=s=640x400:r=25:d=9 \
                -f lavfi -i sine=d=9 -c:v libx264 -preset ultrafast -g 77 -c:a aac";
    let mut ffmpeg = Command::new("ffmpeg");
    assert!(ffmpeg.args(args.split_whitespace()).arg(&film).status().unwrap().success());
    let config = Config { ladder: true, ..place.config(vec![film]) };
    let report = run(&config).await;
    let video: Vec<_> = report.files.iter().map(|file| &file.summary[..]).collect();
    assert!(
        video[0].starts_with("640x400 avc1") && video[1].starts_with("576x360 avc1"),
        "{video:?}"
    );
    assert_eq!((report.files.len(), report.segments), (3, 3), "{report}");
    verify(&config, &report).await;
    let two = Config { ladder: true, ..place.config(tide(&["270p.mp4", "540p.mp4"])) };
    let error = ingest(&two, &Shutdown::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "--ladder: expected one media file to start from, got 2");
}

#[test]
fn a_missing_ffmpeg_is_named_with_what_to_install() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "where_there_is_no_ffmpeg", "--ignored", "--nocapture"])
        .env("PATH", "")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "run by a_missing_ffmpeg_is_named_with_what_to_install"]
async fn where_there_is_no_ffmpeg() {
    let place = Place::new();
    let config = Config { ladder: true, ..place.config(tide(&["540p.mp4"])) };
    let error = ingest(&config, &Shutdown::new()).await.unwrap_err().to_string();
    assert!(error.starts_with("--ladder: ffmpeg and ffprobe are needed"), "{error}");
    assert!(error.contains("apt-get install ffmpeg"), "{error}");
}
