//! What the edge logs, seen as it is logged.

use super::until;
use std::fmt;
use std::sync::{Mutex, Once, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Shows lines of the log to `see`, on the tasks that log them.
struct Log {
    target: &'static str,
    see: fn(&Event<'_>),
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(self.target)
    }

    fn event(&self, event: &Event<'_>) {
        (self.see)(event);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// From now on each line whose target begins so is shown to `see`: what a process asks for first.
pub fn watch(target: &'static str, see: fn(&Event<'_>)) {
    static SET: Once = Once::new();
    SET.call_once(|| tracing::subscriber::set_global_default(Log { target, see }).unwrap());
}

/// Why responses were cut, of all stories of a process.
static FAULTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Faults;

impl Visit for Faults {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "fault" {
            let mut faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
            faults.push(format!("{value:?}"));
        }
    }
}

/// From now on the access log's faults are noted.
pub fn start() {
    watch("access", |event| event.record(&mut Faults));
}

/// Waits until a response was cut for a reason that begins so.
pub async fn told(fault: &str, why: &str) {
    let is_told = || FAULTS.lock().unwrap().iter().any(|told| told.starts_with(fault));
    until(why, || async { is_told().then_some(()) }).await;
}
