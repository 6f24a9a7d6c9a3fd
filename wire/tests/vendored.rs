//! `vendor/` holds published crates with a few changes: those that their diffs say, and no others.
//! Cargo does not bring what is vendored, so this is skipped where the crate is not there by
//! chance, unless `NEARCAST_VENDORED` is set: `./check --full` brings it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The published crate, if cargo has brought it to this machine at some time.
fn published(name: &str, version: &str) -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    let crates = registries.flatten().map(|entry| entry.path().join(format!("{name}-{version}")));
    crates.into_iter().find(|path| path.is_dir())
}

/// The files below a folder, by their paths in it.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path.strip_prefix(root).unwrap().to_owned(), bytes);
            }
        }
    }
    found
}

#[test]
fn what_is_vendored_is_the_published_crate_and_its_diff() {
    compare("quinn-proto", &["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT"]);
    compare("h2", &["Cargo.toml", "LICENSE"]);
}

fn compare(name: &str, unchanged: &[&str]) {
    let vendor = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vendor");
    let own = vendor.join(name);
    let manifest = std::fs::read_to_string(own.join("Cargo.toml")).unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \""));
    let version = version.unwrap().trim_end_matches('"');
    let Some(published) = published(name, version) else {
        assert!(std::env::var_os("NEARCAST_VENDORED").is_none(), "no {name} {version} is here");
        println!("skipped: cargo has not brought {name} {version} to this machine");
        return;
    };
    for file in unchanged {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(read(&own) == read(&published), "{file} differs");
    }

    let patched = tempfile::tempdir().unwrap();
    for (path, bytes) in files(&published.join("src")) {
        let path = patched.path().join("src").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let mut git = Command::new("git");
    git.current_dir(patched.path()).arg("apply").arg(vendor.join(format!("{name}.diff")));
    assert!(git.status().unwrap().success(), "the diff is not of {name} {version}");
    let (own, patched) = (files(&own.join("src")), files(&patched.path().join("src")));
    assert_eq!(own.keys().collect::<Vec<_>>(), patched.keys().collect::<Vec<_>>());
    let differing = own.iter().filter(|&(path, bytes)| patched[path] != *bytes);
    assert_eq!(differing.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}
