//! Docs that name tests name such as there are.

use std::fs;
use std::path::{Path, PathBuf};

/// What a line names between backticks.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The file that a name is one of: the root crate's by its path, the edge's by its name alone.
fn file(root: &Path, name: &str) -> Option<PathBuf> {
    let path = match name.strip_suffix(".rs") {
        Some(_) => root.join(name),
        None => root.join("edge/tests").join(format!("{name}.rs")),
    };
    path.exists().then_some(path)
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
        let mut source = None;
        for name in named(line) {
            if let Some(path) = file(root, name) {
                source = Some(fs::read_to_string(path).expect("a source"));
            } else if is_name(name) {
                let source = source.as_deref().unwrap_or_else(|| panic!("no file for {name}"));
                assert!(source.contains(&format!("fn {name}(")), "no test {name}: {line}");
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}
