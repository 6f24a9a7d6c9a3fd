//! Docs that name tests name such as there are.

use std::fs;
use std::path::{Path, PathBuf};

/// What a line names between backticks.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The source of a file that is named: the root crate's by its path, the edge's by its name alone,
/// which may be that of a folder.
fn source(root: &Path, name: &str) -> Option<String> {
    if name.ends_with(".rs") {
        return fs::read_to_string(root.join(name)).ok();
    }
    let tests = root.join("edge/tests");
    let files = fs::read_dir(tests.join(name)).into_iter().flatten();
    let files = files.map(|entry| entry.expect("an entry").path());
    let files = files.chain([tests.join(format!("{name}.rs"))]).filter(|path| path.is_file());
    let sources: Vec<_> = files.map(|path| fs::read_to_string(path).expect("a source")).collect();
    (!sources.is_empty()).then(|| sources.concat())
}

fn is_name(text: &str) -> bool {
    text.contains('_') && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'))
}

#[test]
fn every_test_that_checked_md_names_is_in_the_file_that_it_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/checked.md")).expect("the page");
    let mut count = 0;
    for line in page.lines() {
        let mut last = None;
        for name in named(line) {
            if let Some(source) = source(root, name) {
                last = Some(source);
            } else if is_name(name) {
                let source = last.as_deref().unwrap_or_else(|| panic!("no file for {name}"));
                assert!(source.contains(&format!("fn {name}(")), "no test {name}: {line}");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}

/// The tests of a source, each as `module::name`; those of a folder below it, too.
fn tests_of(path: &Path, module: &str, found: &mut Vec<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let is_source = path.is_dir() || path.extension().is_some_and(|end| end == "rs");
            if is_source {
                tests_of(&path, &format!("{module}{name}::"), found);
            }
        }
        return;
    }
    let Ok(source) = fs::read_to_string(path) else { return };
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        is_test |= line.starts_with("#[test") || line.starts_with("#[tokio::test");
        let name = line.split_once("fn ").and_then(|(before, name)| {
            matches!(before, "" | "async ").then(|| name.split(['(', '<']).next())?
        });
        if let (true, Some(name)) = (is_test, name) {
            found.push(format!("{module}{name}"));
            is_test = false;
        }
    }
}

/// Where a crate's tests are, in its folder: of its library, of one other target, or all.
fn places(folder: &Path, target: Option<&str>) -> Vec<PathBuf> {
    let (library, tests) = (folder.join("src"), folder.join("tests"));
    match target {
        None => vec![library, tests],
        Some("--lib") => vec![library],
        Some(name) => vec![tests.join(format!("{name}.rs")), tests.join(name)],
    }
}

/// How many tests of these places have names with `filter` in them.
fn count(places: Vec<PathBuf>, filter: Option<&str>) -> usize {
    let mut found = Vec::new();
    places.iter().for_each(|place| tests_of(place, "", &mut found));
    found.iter().filter(|name| filter.is_none_or(|filter| name.contains(filter))).count()
}

/// The folder of one of the workspace's crates.
fn folder(root: &Path, name: &str) -> PathBuf {
    let folder = root.join(name.strip_prefix("nearcast-").unwrap_or_default());
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    assert!(manifest.contains(&format!("name = \"{name}\"")), "no crate {name}");
    folder
}

/// A command, and further targets of the crate that it names: `--test a`, `--test b`.
#[test]
fn every_cargo_test_that_checked_md_names_runs_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/checked.md")).expect("the page");
    let mut commands = 0;
    // The page's own head tells how to read the rest.
    for line in page.lines().filter(|line| line.starts_with('|')) {
        let mut folder_of = None;
        for text in named(line) {
            let words = match text.split_once("cargo test ") {
                Some((_, words)) => words,
                None if text.starts_with("--test ") || text.starts_with("--lib") => text,
                None => continue,
            };
            let (mut target, mut filter) = (None, None);
            let mut words = words.split(' ');
            while let Some(word) = words.next() {
                match word {
                    "-p" => folder_of = words.next().map(|name| folder(root, name)),
                    "--test" => target = words.next(),
                    "--lib" => target = Some(word),
                    _ if word.starts_with('-') => panic!("{word} is not known here: {text}"),
                    name => filter = Some(name),
                }
            }
            let folder = folder_of.as_deref().unwrap_or(root);
            let runs = count(places(folder, target), filter);
            assert!(runs > 0, "`{text}` runs no test: {line}");
            commands += 1;
        }
    }
    assert!(commands > 30, "{commands}");
}

/// The file that operators install has the rules for a live site that the page explains.
#[test]
fn the_file_to_install_has_the_lines_of_a_live_site() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/edge.md")).expect("the page");
    let (_, section) = page.split_once("\n## In front of a live packager\n").expect("the section");
    let (_, lines) = section.split_once("```toml\n").expect("its example");
    let (lines, _) = lines.split_once("```").expect("the example's end");
    let installed = fs::read_to_string(root.join("deploy/cache.toml")).expect("the file");
    assert!(installed.ends_with(lines), "deploy/cache.toml is to end with these lines:\n{lines}");
}
