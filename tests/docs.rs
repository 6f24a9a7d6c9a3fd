//! Docs that name tests name such as there are.

use std::fs;
use std::path::Path;

/// Every line of code under these folders.
fn sources(folder: &Path, all: &mut String) {
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")).collect();
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

#[test]
fn every_test_that_checked_md_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    sources(&root.join("tests"), &mut all);
    sources(&root.join("edge/tests"), &mut all);
    let page = fs::read_to_string(root.join("docs/checked.md")).expect("the page");
    let named: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| {
            code.contains('_') && code.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'))
        })
        .collect();
    assert!(named.len() > 30, "{named:?}");
    for name in named {
        let is_file = root.join("edge/tests").join(format!("{name}.rs")).exists();
        assert!(is_file || all.contains(&format!("fn {name}(")), "no test {name}");
    }
}
