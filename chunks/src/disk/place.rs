//! Which folder a disk may be used at, after it was off: the one that it was, or this edge's own
//! or an empty one on another disk that is mounted in its place.
//!
//! A disk that is mounted again may be another device. But the folder below a mount is never
//! used, whatever is in it: what is written there fills the wrong disk. Every function here
//! blocks.

use super::folder;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that tells whose a folder is.
const OWNER_FILE: &str = "owner";
/// What an empty folder may hold: what its filesystem made, and what a try to use it left.
const NOTHING: [&str; 5] = ["lost+found", "lock", "probe", "direct", OWNER_NEW];
const OWNER_NEW: &str = "owner.new";

/// Tells the folders of one edge from all others: drawn by lot, once in its data folder's life.
#[derive(Debug, Clone)]
pub(crate) struct Owner(Arc<str>);

impl Owner {
    /// The owner whose data folder this is.
    ///
    /// # Errors
    /// It can be neither read nor made.
    pub(crate) fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("ssd-owner");
        let found = fs::read_to_string(&path).unwrap_or_default();
        if !found.is_empty() {
            return Ok(Self(found.into()));
        }
        let owner = Self::new();
        put(&path, &path.with_extension("new"), &owner.0)?;
        Ok(owner)
    }

    /// One that nobody else is.
    pub(crate) fn new() -> Self {
        Self(format!("{:032x}\n", rand::random::<u128>()).into())
    }

    /// Notes that a folder is this owner's.
    pub(super) fn sign(&self, dir: &Path) -> io::Result<()> {
        if self.owns(dir)? {
            return Ok(());
        }
        put(&dir.join(OWNER_FILE), &dir.join(OWNER_NEW), &self.0)
    }

    fn owns(&self, dir: &Path) -> io::Result<bool> {
        match fs::read(dir.join(OWNER_FILE)) {
            Ok(owner) => Ok(owner == self.0.as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Puts a whole file in place, by way of `new`.
fn put(path: &Path, new: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create(new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// Where a folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    device: u64,
    /// Where the device is mounted.
    mount: PathBuf,
}

impl Place {
    fn of(dir: &Path) -> io::Result<Self> {
        let mut mount = fs::canonicalize(dir)?;
        let device = fs::metadata(&mount)?.dev();
        while let Some(parent) = mount.parent()
            && fs::metadata(parent)?.dev() == device
        {
            mount.pop();
        }
        Ok(Self { device, mount })
    }

    /// The number of its filesystem.
    pub(super) fn device(&self) -> u64 {
        self.device
    }

    /// Finds a disk's folder, which was at `before` when it was last in use; makes it if need be,
    /// where it may be made.
    pub(super) fn find(dir: &Path, before: Option<&Self>, owner: &Owner) -> io::Result<Self> {
        let Some(before) = before else {
            fs::create_dir_all(dir)?;
            return Self::of(dir);
        };
        let is_there = dir.try_exists()?;
        let there = if is_there { dir } else { dir.parent().unwrap_or(dir) };
        let place = Self::of(there)?;
        if place.device != before.device {
            if place.is_below(before) {
                return Err(io::Error::other("its disk is not mounted"));
            }
            if is_there && !owner.owns(dir)? && !is_empty(dir)? {
                return Err(io::Error::other("another disk is in its place, with other files"));
            }
        }
        if !is_there {
            fs::create_dir(dir)?;
        }
        Ok(place)
    }

    /// Whether this is what comes to light when the other is unmounted.
    fn is_below(&self, other: &Self) -> bool {
        self.mount != other.mount && other.mount.starts_with(&self.mount)
    }
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    // Some filesystems show nothing of what they have.
    if folder::first_file(dir).try_exists()? || dir.join(OWNER_FILE).try_exists()? {
        return Ok(false);
    }
    let mut names = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name()));
    let is_something = |name: &OsStr| NOTHING.iter().all(|nothing| name != *nothing);
    names.try_fold(true, |empty, name| Ok(empty && !is_something(&name?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn mount(command: &[&str], dir: &Path) -> bool {
        let output = Command::new(command[0]).args(&command[1..]).arg(dir).output();
        let done = output.as_ref().is_ok_and(|output| output.status.success());
        if !done {
            assert!(std::env::var_os("NEARCAST_DISKS").is_none(), "{command:?}: {output:?}");
            println!("skipped: {command:?}: {output:?}");
        }
        done
    }

    #[test]
    fn a_disk_is_taken_in_the_place_of_the_folder_below_it_and_never_the_other_way() {
        let data = tempfile::tempdir().unwrap();
        let (dir, owner) = (data.path().join("disk"), Owner::of(data.path()).unwrap());
        let find = |before: &Place, dir: &Path| Place::find(dir, Some(before), &owner);
        let below = Place::find(&dir, None, &owner).unwrap();
        owner.sign(&dir).unwrap();
        if !mount(&["mount", "-t", "tmpfs", "none"], &dir) {
            return;
        }
        let mounted = find(&below, &dir);
        Owner::new().sign(&dir).unwrap();
        let of_others = find(&below, &dir);
        owner.sign(&dir).unwrap();
        fs::write(folder::first_file(&dir), "").unwrap();
        // Another edge of the same data folder: a restart.
        let own = Place::find(&dir, Some(&below), &Owner::of(data.path()).unwrap());
        let made = find(&below, &dir.join("cache"));
        assert!(mount(&["umount"], &dir));
        let mounted = mounted.unwrap();
        assert_eq!((&mounted.mount, own.unwrap()), (&dir.canonicalize().unwrap(), mounted.clone()));
        assert_eq!(made.unwrap(), mounted);
        assert!(of_others.unwrap_err().to_string().contains("other files"));
        for gone in [&dir, &dir.join("cache")] {
            assert!(find(&mounted, gone).unwrap_err().to_string().contains("not mounted"));
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "the owner's name alone");
        assert_eq!(find(&below, &dir).unwrap(), below);
    }
}
