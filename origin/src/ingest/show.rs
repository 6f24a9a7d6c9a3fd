//! Progress bars on a terminal's standard error; nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str =
    "{prefix:10} {bar:32} {bytes:>10} of {total_bytes}  {bytes_per_sec:>12}  {eta} left";

const LENGTH_TEMPLATE: &str = "{prefix:10} {bar:32} {percent:>3} %  {eta} left";

/// One bar with bytes done, rate and time left.
#[derive(Clone)]
pub(super) struct Show(ProgressBar);

impl Show {
    /// Over bytes.
    pub(super) fn new(what: &'static str, bytes: u64) -> Self {
        Self::styled(what, bytes, TEMPLATE)
    }

    /// Over a length of time, in any unit.
    pub(super) fn length(what: &'static str, length: u64) -> Self {
        Self::styled(what, length, LENGTH_TEMPLATE)
    }

    fn styled(what: &'static str, length: u64, template: &str) -> Self {
        let bar = ProgressBar::new(length).with_prefix(what);
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// So much more is done.
    pub(super) fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// So much is done.
    pub(super) fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Leaves the full bar standing.
    pub(super) fn done(&self) {
        self.0.finish();
    }
}
