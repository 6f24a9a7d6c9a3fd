//! What the access log says of responses that were cut.

use super::until;
use std::fmt;
use std::sync::{Mutex, Once, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Why each was, of all stories of a process.
static FAULTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

struct Faults;

impl Visit for Faults {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "fault" {
            let mut faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
            faults.push(format!("{value:?}"));
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "access"
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Faults);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// From now on it is noted.
pub fn start() {
    static SET: Once = Once::new();
    SET.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
}

/// Waits until a response was cut for a reason that begins so.
pub async fn told(fault: &str, why: &str) {
    let is_told = || FAULTS.lock().unwrap().iter().any(|told| told.starts_with(fault));
    until(why, || async { is_told().then_some(()) }).await;
}
