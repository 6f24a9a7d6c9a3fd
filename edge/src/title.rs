//! Titles: their indexes, fetched once and checked against the version, and what is rendered
//! from them.
//!
//! Invariant: a [`Title`] in hand is exactly what its version stands for.

mod shelf;

pub use shelf::Shelf;

use crate::error::Fault;
use crate::flights::{Flights, Ticket};
use crate::object::Passed;
use crate::origin::Origin;
use crate::verdict::Verdict;
use bytes::Bytes;
use lru::LruCache;
use model::index::{INDEX_BYTES_MAX, Kind};
use model::route::Resource;
use model::{ByteRange, TitleId, TitleIndex, Track, TrackId, Version, store_key};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

/// Titles kept in memory; the longest take a few MiB each with their manifests.
const TITLES_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// "There is no such title" is believed for this long: short, since it may be published.
const ABSENT_FOR: Duration = Duration::from_secs(2);
/// How many absent titles are remembered.
const ABSENT_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// A title's version, by its names.
pub type Name = (TitleId, Version);

/// A title's index, and the manifests made from it so far.
pub struct Title {
    /// The title.
    pub title: TitleId,
    /// Its version.
    pub version: Version,
    /// All that is known of it.
    pub index: TitleIndex,
    hls: OnceLock<Manifest>,
    dash: OnceLock<Manifest>,
    media: Vec<OnceLock<Manifest>>,
}

/// A rendered manifest.
#[derive(Clone)]
pub struct Manifest {
    /// Its text.
    pub text: Bytes,
    /// Strong validator, with quotes: of the text, since a newer release may render otherwise.
    pub etag: String,
}

/// What a URL names within a title.
pub enum Object {
    /// A manifest and its media type.
    Manifest(Manifest, &'static str),
    /// Bytes of a track file.
    Media {
        /// The track's place in the index.
        track: usize,
        /// Which bytes.
        range: ByteRange,
        /// Media type.
        content_type: &'static str,
    },
}

impl Title {
    /// Decodes an index and checks it against the version.
    pub(crate) fn decode(name: &Name, bytes: &[u8]) -> Option<Self> {
        if Version::of_index(bytes) != name.1 {
            return None;
        }
        let index = TitleIndex::decode(bytes).ok()?;
        let media = index.tracks.iter().map(|_| OnceLock::new()).collect();
        let (title, version) = name.clone();
        Some(Self { title, version, index, hls: OnceLock::new(), dash: OnceLock::new(), media })
    }

    /// Its names.
    #[must_use]
    pub fn name(&self) -> Name {
        (self.title.clone(), self.version)
    }

    /// A track and its place.
    fn track(&self, id: &TrackId) -> Option<(usize, &Track)> {
        self.index.tracks.iter().enumerate().find(|(_, track)| track.facts.id == *id)
    }

    /// The origin's path of a track's file.
    #[must_use]
    pub fn file_path(&self, track: &Track) -> String {
        store_key::track(&self.title, &self.version, &track.facts.id, track.extension())
    }

    /// What `resource` names; none if the title has no such thing, or for the steering
    /// manifest, which is no part of a title.
    #[must_use]
    pub fn object(&self, resource: &Resource) -> Option<Object> {
        const HLS: &str = "application/vnd.apple.mpegurl";
        match resource {
            Resource::Steering => None,
            Resource::Hls => {
                let text = || manifest(manifests::hls::multivariant(&self.index));
                Some(Object::Manifest(self.hls.get_or_init(text).clone(), HLS))
            }
            Resource::Dash => {
                let text = || manifest(manifests::dash::mpd(&self.index));
                Some(Object::Manifest(self.dash.get_or_init(text).clone(), "application/dash+xml"))
            }
            Resource::MediaPlaylist(id) => {
                let (place, track) = self.track(id)?;
                let text = || manifest(manifests::hls::media(track));
                Some(Object::Manifest(self.media[place].get_or_init(text).clone(), HLS))
            }
            Resource::Init(id) => self.media_of(id, |track| Some(track.facts.init)),
            Resource::Segment(id, number) => self.media_of(id, |track| {
                Some(track.segments.get(usize::try_from(*number).ok()?)?.range)
            }),
            Resource::File(id) => self.whole_file(id, "mp4"),
            Resource::Text(id) => self.whole_file(id, "vtt"),
        }
    }

    /// As [`Title::object`], for the thread of a connection: a manifest that is to be rendered
    /// first, milliseconds for a long film, is rendered elsewhere.
    pub async fn object_apart(self: &Arc<Self>, resource: &Resource) -> Option<Object> {
        if self.is_at_hand(resource) {
            return self.object(resource);
        }
        let (title, resource) = (Arc::clone(self), resource.clone());
        spawn_blocking(move || title.object(&resource)).await.ok().flatten()
    }

    fn is_at_hand(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Hls => self.hls.get().is_some(),
            Resource::Dash => self.dash.get().is_some(),
            Resource::MediaPlaylist(id) => {
                self.track(id).is_none_or(|(place, _)| self.media[place].get().is_some())
            }
            _ => true,
        }
    }

    fn whole_file(&self, id: &TrackId, extension: &str) -> Option<Object> {
        self.media_of(id, |track| {
            let whole = ByteRange::new(0, track.facts.file_bytes);
            (track.extension() == extension).then_some(whole)
        })
    }

    fn media_of(
        &self,
        id: &TrackId,
        range: impl Fn(&Track) -> Option<ByteRange>,
    ) -> Option<Object> {
        let (place, track) = self.track(id)?;
        let content_type = match track.facts.kind {
            Kind::Video { .. } => "video/mp4",
            Kind::Audio { .. } => "audio/mp4",
            Kind::Text => "text/vtt; charset=utf-8",
        };
        // An index is the origin's word: a range past its file's end is nothing to serve.
        let range = range(track).filter(|range| range.fits(track.facts.file_bytes));
        let range = range.filter(|range| range.bytes > 0)?;
        Some(Object::Media { track: place, range, content_type })
    }
}

impl Manifest {
    /// Names its text.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(self.etag.as_bytes()).as_bytes()[..16]);
        id
    }
}

fn manifest(text: String) -> Manifest {
    let digest = blake3::hash(text.as_bytes()).to_hex();
    Manifest { etag: format!("\"{}\"", &digest[..24]), text: text.into() }
}

type Landed = Result<(Arc<Title>, Verdict), Fault>;

/// The titles that this edge knows.
pub struct Titles {
    known: Mutex<LruCache<Name, Arc<Title>>>,
    absent: Mutex<LruCache<Name, Instant>>,
    flights: Flights<Name, Landed>,
    origin: Origin,
    shelf: Shelf,
}

impl Titles {
    /// Titles from `origin`, kept on `shelf`, too.
    pub fn new(origin: Origin, shelf: Shelf) -> Self {
        Self {
            known: Mutex::new(LruCache::new(TITLES_MAX)),
            absent: Mutex::new(LruCache::new(ABSENT_MAX)),
            flights: Flights::new(),
            origin,
            shelf,
        }
    }

    /// A title: from memory, from disk, or from the origin, fetched once however many wait.
    /// `passed` are the nodes that ask.
    ///
    /// # Errors
    /// [`Fault::NotFound`], or how the origin failed.
    pub async fn get(self: &Arc<Self>, name: &Name, passed: &Passed) -> Landed {
        if let Some(title) = self.in_memory(name) {
            return Ok((title, Verdict::HitMemory));
        }
        let (wait, ticket) = self.flights.join(name.clone(), &upstream::Urgency::default());
        let joined = ticket.is_none();
        if let Some(ticket) = ticket {
            // A fetch may have landed between the look and the join.
            if let Some(title) = self.in_memory(name) {
                return Ok((title, Verdict::HitMemory));
            }
            let bringing = Arc::clone(self).bring(ticket, passed.clone());
            tokio::spawn(self.origin.metrics().guarded(bringing));
        }
        let (title, verdict) = wait.landed().await.unwrap_or(Err(Fault::Lost))?;
        let joined = joined && !verdict.is_hit();
        Ok((title, if joined { Verdict::Filling } else { verdict }))
    }

    fn in_memory(&self, name: &Name) -> Option<Arc<Title>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    async fn bring(self: Arc<Self>, ticket: Ticket<Name, Landed>, passed: Passed) {
        let landed = self.find(ticket.key(), &passed).await;
        match &landed {
            Ok((title, _)) => {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.put(ticket.key().clone(), Arc::clone(title));
            }
            Err(Fault::NotFound) => {
                let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
                absent.put(ticket.key().clone(), Instant::now());
            }
            Err(_) => {}
        }
        ticket.land(landed);
    }

    async fn find(&self, name: &Name, passed: &Passed) -> Landed {
        if let Some(title) = self.shelf.read(name).await {
            return Ok((title, Verdict::HitSsd));
        }
        let known_absent =
            self.absent.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        if known_absent.is_some_and(|at| at.elapsed() < ABSENT_FOR) {
            return Err(Fault::NotFound);
        }
        let path = store_key::index(&name.0, &name.1);
        let read = |bytes: &Bytes| Title::decode(name, bytes);
        let found = self.origin.whole(&path, INDEX_BYTES_MAX, passed, read).await?;
        self.shelf.write(name, found.bytes).await;
        Ok((Arc::new(found.value), found.source))
    }

    /// The bytes of a title's index, as its version stands for.
    ///
    /// # Errors
    /// How the origin failed, where the index is not one that is written again as it was.
    pub async fn index_bytes(&self, title: &Arc<Title>, passed: &Passed) -> Result<Bytes, Fault> {
        let encoding = Arc::clone(title);
        // Megabytes to encode and to hash: not on the thread of a connection.
        let encoded = spawn_blocking(move || {
            let encoded = Bytes::from(encoding.index.encode());
            (Version::of_index(&encoded) == encoding.version).then_some(encoded)
        });
        if let Ok(Some(encoded)) = encoded.await {
            return Ok(encoded);
        }
        let path = store_key::index(&title.title, &title.version);
        let is_it = |bytes: &Bytes| (Version::of_index(bytes) == title.version).then_some(());
        Ok(self.origin.whole(&path, INDEX_BYTES_MAX, passed, is_it).await?.bytes)
    }
}
