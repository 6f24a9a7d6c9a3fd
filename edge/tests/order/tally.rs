//! What took place in histories, so that none of it silently stops taking place.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// Counts by name.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    pub fn add(&self, name: impl Into<String>, count: u64) {
        *self.0.lock().unwrap().entry(name.into()).or_default() += count;
    }

    pub fn count(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    pub fn add_all(&self, other: &Self) {
        for (name, count) in &*other.0.lock().unwrap() {
            self.add(name, *count);
        }
    }

    pub fn print(&self) {
        for (name, count) in &*self.0.lock().unwrap() {
            println!("{count:>9} {name}");
        }
    }

    /// What of this did not take place.
    pub fn missing<'a>(&self, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| self.count(name) == 0).collect()
    }

    /// # Panics
    /// If something of this did not take place.
    pub fn expect_all(&self, names: &[&str]) {
        let missing = self.missing(names);
        assert!(missing.is_empty(), "never took place: {missing:?}, but {:?}", self.0);
    }
}
