//! The fill plan in force: its file, what of it fits the budget, and where the files of its titles lie.

use crate::title::Name;
use model::FillPlan;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// The plan in force, beside the titles' folders.
pub(super) const PLAN_FILE: &str = "plan.json";

/// Where a planned title's index lies.
pub(super) fn index_path(plan_dir: &Path, name: &Name) -> PathBuf {
    title_dir(plan_dir, name).join("index")
}

pub(super) fn title_dir(plan_dir: &Path, name: &Name) -> PathBuf {
    plan_dir.join(name.0.as_str()).join(name.1.to_string())
}

/// The plan in force.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) plan: FillPlan,
    /// What of it fits the budget, most valuable first, with its bytes.
    pub(super) wanted: Vec<(Name, u64)>,
    /// Every file of it is here.
    pub(super) complete: bool,
    /// It lies on the disk: what it names is still wanted after a restart.
    pub(super) stored: bool,
}

impl Accepted {
    pub(super) fn names(&self) -> HashSet<Name> {
        self.wanted.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn new(plan: FillPlan, bytes_max: u64) -> Self {
        let mut left = bytes_max;
        let mut wanted = Vec::new();
        for planned in &plan.titles {
            if planned.bytes <= left {
                left -= planned.bytes;
                wanted.push(((planned.title.clone(), planned.version), planned.bytes));
            }
        }
        if wanted.len() < plan.titles.len() {
            let over = plan.titles.len() - wanted.len();
            tracing::warn!(number = plan.number, over, bytes_max, "the plan exceeds the budget");
        }
        Self { plan, wanted, complete: false, stored: false }
    }
}

pub(super) fn write_plan(dir: &Path, plan: &FillPlan) -> io::Result<()> {
    let text = serde_json::to_vec(plan).map_err(io::Error::other)?;
    crate::disk::replace(&dir.join(PLAN_FILE), &text)
}

pub(super) fn read_plan(dir: &Path) -> io::Result<Option<FillPlan>> {
    let path = dir.join(PLAN_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let plan = serde_json::from_slice(&bytes).inspect_err(|error| {
        tracing::warn!(path = %path.display(), %error, "the stored plan is damaged: ignored");
    });
    Ok(plan.ok())
}

/// Removes the folders of titles that the plan in force does not name.
pub(super) fn remove_unwanted(dir: &Path, wanted: &HashSet<Name>) {
    let folders = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    for title in folders(dir) {
        for version in folders(&title) {
            let named = name(&title).and_then(|title| title.parse().ok());
            let named = named.zip(name(&version).and_then(|version| version.parse().ok()));
            if named.is_some_and(|named| wanted.contains(&named)) {
                continue;
            }
            match std::fs::remove_dir_all(&version) {
                Ok(()) => tracing::info!(path = %version.display(), "left the plan: removed"),
                Err(error) => {
                    tracing::warn!(path = %version.display(), %error, "can't be removed");
                }
            }
        }
        // Fails while versions of the title are left.
        let _ = std::fs::remove_dir(&title);
    }
}
