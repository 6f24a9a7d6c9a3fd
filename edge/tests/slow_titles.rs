//! With memory full, more readers of cold films of a title site than memory has places for get their
//! bytes as they take them, each verified before: the origin sends each byte about once.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{Film, Stage, Stopped, films};
use futures::future::join_all;
use nearcast_edge::Settings;
use service::value::ByteSize;

const MIB: usize = 1 << 20;
const FILM_BYTES: usize = 6 * MIB;
const PORTION_BYTES: usize = 64 << 10;

/// Readers, each of another film. `NEARCAST_SLOW_READERS` says how many: 300 have 128 MiB.
struct Crowd {
    stage: Stage,
    /// What the films are, whatever the origin has.
    right: Film,
    count: usize,
    readers: Vec<Stopped>,
    /// What the origin had sent before they came.
    before: u64,
}

fn file(number: usize) -> String {
    format!("v{number}.mp4")
}

impl Crowd {
    async fn new() -> Self {
        Self::before(|_| ()).await
    }

    /// Before an origin whose files are changed so.
    async fn before(change: impl Fn(&mut Film)) -> Self {
        let mut crowd = Self::behind(change).await;
        crowd.readers = join_all((0..crowd.count).map(|number| crowd.reader(file(number)))).await;
        crowd
    }

    /// Nobody reads yet.
    async fn behind(change: impl Fn(&mut Film)) -> Self {
        let count = std::env::var("NEARCAST_SLOW_READERS").map_or(40, |it| it.parse().unwrap());
        let memory = (count * 128 / 300).max(32) * MIB;
        let right = films(count, FILM_BYTES, memory * 5 / 4);
        let mut film = right.clone();
        change(&mut film);
        let memory = Some(ByteSize(memory as u64));
        let stage = Stage::of(film, |settings| Settings { memory, ..settings }).await;
        assert_eq!(stage.get("other.mp4").await.bytes(), &right.files["other.mp4"]);
        let before = stage.origin.body_bytes();
        Self { stage, right, count, readers: Vec::new(), before }
    }

    async fn reader(&self, resource: String) -> Stopped {
        Stopped::at(&self.stage.edge, &self.stage.url_at("", &resource)).await
    }

    /// Each takes a portion in turn, until so many bytes of its film are left.
    async fn take_in_portions(&mut self, left: usize) {
        while self.readers.iter().any(|reader| reader.left() > left) {
            for (number, reader) in self.readers.iter_mut().enumerate() {
                let right = &self.right.files[&file(number)];
                let at = right.len() - reader.left();
                let portion = reader.takes(PORTION_BYTES).await;
                assert!(portion == right[at..at + portion.len()], "{number} at {at}");
            }
        }
    }

    /// What the origin has sent to them, in films.
    async fn sent(&self) -> f64 {
        assert!(self.stage.edge.metric("nearcast_edge_memory_passed_bytes_total").await > 0.0);
        let sent = self.stage.origin.body_bytes() - self.before;
        let sent = sent as f64 / (self.count * FILM_BYTES) as f64;
        println!("{sent:.3} times the films, in {} requests", self.stage.origin.media().len());
        sent
    }

    async fn corrupt(&self) -> f64 {
        self.stage.edge.metric(r#"nearcast_edge_corrupt_chunks_total{source="origin"}"#).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_more_readers_take_than_memory_has_places_for_is_sent_about_once() {
    let mut crowd = Crowd::new().await;
    crowd.take_in_portions(0).await;
    let sent = crowd.sent().await;
    assert!(sent <= 1.05, "{sent:.3}");
    assert_eq!(crowd.corrupt().await, 0.0);
}

/// As titles have none that were ingested before there were such files: what a chunk is verified by
/// in parts is learned when it is here as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn without_tree_files_it_is_sent_about_twice() {
    let has_no = |film: &mut Film| film.files.retain(|name, _| !name.ends_with(".tree"));
    let mut crowd = Crowd::before(has_no).await;
    crowd.take_in_portions(0).await;
    let sent = crowd.sent().await;
    assert!(sent <= 2.5, "{sent:.3}");
}

/// Of a tree file that is wrong nothing is believed.
#[tokio::test(flavor = "multi_thread")]
async fn by_a_wrong_tree_file_nobody_is_given_other_bytes() {
    let mut crowd = Crowd::before(|film| flip(film, ".tree", 40)).await;
    crowd.take_in_portions(0).await;
    assert!(crowd.corrupt().await > 0.0);
}

/// Each is given what is right before it, and nothing of the wrong leaf.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_wrong_leaf_nobody_is_given_a_byte() {
    const WRONG: usize = 3 * MIB + 500_000;
    let mut crowd = Crowd::before(|film| flip(film, ".mp4", WRONG)).await;
    crowd.take_in_portions(FILM_BYTES - 3 * MIB).await;
    for (number, reader) in crowd.readers.iter_mut().enumerate() {
        let (at, right) = (FILM_BYTES - reader.left(), &crowd.right.files[&file(number)]);
        let rest = reader.rest().await;
        assert!(at + rest.len() <= WRONG && rest == right[at..at + rest.len()], "{number}");
    }
    crowd.sent().await;
}

/// What they want is one piece, of one chunk each: all of it is with their connections at once.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stop_in_a_segment_leave_memory_to_others() {
    let mut crowd = Crowd::behind(|_| ()).await;
    for number in 0..crowd.count {
        let reader = crowd.reader(format!("v{number}/0.m4s")).await;
        crowd.readers.push(reader);
    }
    assert_eq!(crowd.stage.get("v0/7.m4s").await.bytes(), &crowd.right.segment("v0", 7));
}

/// The byte at this place of each film's files with this ending, or another one, is wrong.
fn flip(film: &mut Film, ending: &str, at: usize) {
    for (_, bytes) in film
        .files
        .iter_mut()
        .filter(|(name, _)| name.ends_with(ending) && !name.starts_with("other"))
    {
        let mut wrong = bytes.to_vec();
        wrong[at] ^= 1;
        *bytes = wrong.into();
    }
}
