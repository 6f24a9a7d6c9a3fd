//! What the store holds of a title: the truth that played bytes are compared with.

use anyhow::{Context, Result, bail};
use model::route::Resource;
use model::{ByteRange, TitleId, TitleIndex, Track, Version};
use std::collections::HashMap;
use std::path::Path;

/// A title's version as it lies in a `dir:` store, in memory.
#[derive(Debug)]
pub struct StoredTitle {
    /// Its index.
    pub index: TitleIndex,
    files: HashMap<String, Vec<u8>>,
}

/// How a body compares with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every byte is the store's.
    Right,
    /// This many bytes are wrong, missing or too many.
    Wrong(u64),
    /// A manifest: rendered, so not in the store.
    Rendered,
}

impl StoredTitle {
    /// Reads it whole.
    ///
    /// # Errors
    /// When a file of it can't be read.
    pub fn read(store: &Path, title: &TitleId, version: &Version) -> Result<Self> {
        let folder = store.join(format!("titles/{title}/{version}"));
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).with_context(|| path.display().to_string())
        };
        let encoded = read("index")?;
        if Version::of_index(&encoded) != *version {
            bail!("{}: the index is not that of version {version}", folder.display());
        }
        let index = TitleIndex::decode(&encoded)?;
        let names = index.tracks.iter().map(Track::file_name);
        let files = names.map(|name| Ok((name.clone(), read(&name)?))).collect::<Result<_>>()?;
        Ok(Self { index, files })
    }

    /// Compares the body that a play got for `resource` with the store.
    #[must_use]
    pub fn compare(&self, resource: &Resource, body: &[u8]) -> Verdict {
        let (track, range) = match resource {
            Resource::Init(track) => (track, self.range(track, |t| Some(t.facts.init))),
            Resource::Segment(track, number) => {
                let segment = |t: &Track| Some(t.segments.get(*number as usize)?.range);
                (track, self.range(track, segment))
            }
            Resource::File(track) | Resource::Text(track) => {
                (track, self.range(track, |t| Some(ByteRange::new(0, t.facts.file_bytes))))
            }
            Resource::Hls | Resource::Dash | Resource::Steering | Resource::MediaPlaylist(_) => {
                return Verdict::Rendered;
            }
        };
        let file = self.index.track(track).and_then(|track| self.files.get(&track.file_name()));
        let wanted = file.zip(range).and_then(|(file, range)| {
            file.get(usize::try_from(range.start).ok()?..usize::try_from(range.end()).ok()?)
        });
        match wanted {
            None => Verdict::Wrong(body.len() as u64),
            Some(wanted) if wanted == body => Verdict::Right,
            Some(wanted) => Verdict::Wrong(differing(wanted, body)),
        }
    }

    fn range(
        &self,
        track: &model::TrackId,
        of: impl Fn(&Track) -> Option<ByteRange>,
    ) -> Option<ByteRange> {
        of(self.index.track(track)?)
    }
}

fn differing(wanted: &[u8], got: &[u8]) -> u64 {
    let unequal = wanted.iter().zip(got).filter(|(a, b)| a != b).count();
    (unequal + wanted.len().abs_diff(got.len())) as u64
}
