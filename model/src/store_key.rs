//! Where things lie in the object store. A new cut of a title is a new version: nothing is
//! overwritten but what is damaged, and a version is complete once its publish record exists.

use crate::{TitleId, TrackId, Version};

/// Under this prefix lie the publish records, one a publication: listing the catalog costs one
/// key each, however many files the titles have.
pub const PUBLISHED: &str = "published/";

/// The extension of tree files.
pub const TREE: &str = "tree";

/// Key of a title's index.
#[must_use]
pub fn index(title: &TitleId, version: &Version) -> String {
    format!("titles/{title}/{version}/index")
}

/// Key of a track file; `extension` is `mp4` or `vtt`.
#[must_use]
pub fn track(title: &TitleId, version: &Version, track: &TrackId, extension: &str) -> String {
    format!("titles/{title}/{version}/{track}.{extension}")
}

/// Key of a track's [tree file](crate::tree).
#[must_use]
pub fn tree(title: &TitleId, version: &Version, track: &TrackId) -> String {
    self::track(title, version, track, TREE)
}

/// Key of a publish record: written last, and only if absent.
#[must_use]
pub fn publish_record(title: &TitleId, version: &Version) -> String {
    format!("{PUBLISHED}{title}/{version}")
}

/// Key of a further publish record of a version: written when an older cut is to play again,
/// or under a new name. The newest record of a title is the one that plays.
#[must_use]
pub fn republish_record(title: &TitleId, version: &Version, at_ms: u64) -> String {
    format!("{}.{at_ms}", publish_record(title, version))
}

/// Whether `key` may hold a publish record of this version.
#[must_use]
pub fn is_publish_record(key: &str, title: &TitleId, version: &Version) -> bool {
    let rest = key.strip_prefix(&publish_record(title, version));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
