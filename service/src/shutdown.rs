//! One signal that ends a process in order.

use std::io::IsTerminal as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Told once, heard by everybody who holds a clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Not yet requested.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requested by the first SIGINT or SIGTERM; a second one ends the process at once with
    /// status 130, for an operator who does not want to wait. SIGHUP is as these where a terminal
    /// is there that may have been closed; elsewhere it asks to read settings anew, as many
    /// services do, and there is nothing to read: the log says so.
    ///
    /// # Errors
    /// When the signals can't be listened to.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let has_terminal = std::io::stdin().is_terminal() || std::io::stderr().is_terminal();
        let told = shutdown.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {
                        if !has_terminal {
                            tracing::warn!(
                                "SIGHUP: settings are read at the start alone, certificates as \
                                 they change; going on"
                            );
                            continue;
                        }
                    }
                }
                if told.is_requested() {
                    std::process::exit(130);
                }
                tracing::info!("ending: a second signal ends at once");
                told.trigger();
            }
        });
        Ok(shutdown)
    }

    /// Requests it.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether it was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it is requested. Cancel safe.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }
}
