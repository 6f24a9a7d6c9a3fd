//! What is written to a stream, as long as its peer takes it.
//!
//! Invariant: a stream is given up whose peer takes less than [`SEND_BYTES_MIN`] of it within the
//! limit, and none that takes more, however much is written at a time; nor one that waits while
//! more urgent ones of its connection leave.

use crate::patience::Wait;
use crate::{SEND_BYTES_MIN, Shared};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::time::{Instant, timeout_at};

/// Urgencies of RFC 9218 section 4.1.
const URGENCIES: usize = 8;

/// Bytes that answers of each urgency have handed over, of one connection.
#[derive(Default)]
pub struct Tally([AtomicU64; URGENCIES]);

impl Tally {
    /// One of this urgency has handed over so many.
    pub fn add(&self, urgency: u8, bytes: usize) {
        if let Some(all) = self.0.get(usize::from(urgency)) {
            all.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// What those have that leave before one of this urgency.
    fn before(&self, urgency: u8) -> u64 {
        self.0.iter().take(urgency.into()).map(|all| all.load(Relaxed)).sum()
    }
}

/// Writes all of these, for an answer of this urgency.
///
/// # Errors
/// When the stream or its connection has ended, or the peer takes too little of it.
pub async fn write<S>(
    shared: &Shared<S>,
    (tally, urgency): (&Tally, u8),
    stream: &mut quinn::SendStream,
    mut pieces: &mut [Bytes],
) -> Result<(), String> {
    let due = || (Instant::now() + shared.patience.send, tally.before(urgency));
    let ((mut by, mut before), mut taken) = (due(), 0);
    while pieces.iter().any(|piece| !piece.is_empty()) {
        // Ends once a part of them is written.
        let Ok(written) = timeout_at(by, stream.write_chunks(pieces)).await else {
            // What is more urgent had its turn.
            if tally.before(urgency) - before >= SEND_BYTES_MIN {
                (by, before) = due();
                continue;
            }
            shared.metrics.given_up.count(Wait::Send);
            return Err("the peer takes no bytes".to_owned());
        };
        let written = written.map_err(|error| error.to_string())?;
        tally.add(urgency, written.bytes);
        taken += written.bytes as u64;
        if taken >= SEND_BYTES_MIN {
            ((by, before), taken) = (due(), 0);
        }
        pieces = &mut pieces[written.chunks..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stalls::{Stage, holds_the_clock, soon};
    use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
    use quinn::{ClientConfig, Endpoint, RecvStream, ServerConfig, TransportConfig};
    use std::pin::pin;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::task::JoinHandle;

    const LIMIT: Duration = Duration::from_secs(2);
    /// What the client lets be under way.
    const WINDOW_BYTES: usize = 16 << 10;
    /// A piece of a body, as it is written at once.
    const PIECE_BYTES: usize = 256 << 10;

    type Sending = JoinHandle<(Result<(), String>, quinn::SendStream)>;

    /// Pieces of these urgencies on their way to a client that reads as it is told to.
    async fn begun<const N: usize>(
        stage: &Stage,
        urgencies: [u8; N],
    ) -> ([(Sending, RecvStream); N], [Endpoint; 2]) {
        let (server, mut client) = stage.tls(&[b"h3"]);
        client.alpn_protocols = vec![b"h3".to_vec()];
        let crypto = Arc::new(QuicServerConfig::try_from(server).unwrap());
        let any = ([127, 0, 0, 1], 0).into();
        let server = Endpoint::server(ServerConfig::with_crypto(crypto), any).unwrap();
        let crypto = Arc::new(QuicClientConfig::try_from(client).unwrap());
        let mut config = ClientConfig::new(crypto);
        let mut transport = TransportConfig::default();
        transport.stream_receive_window((WINDOW_BYTES as u32).into());
        config.transport_config(Arc::new(transport));
        let client = Endpoint::client(any).unwrap();
        let connecting =
            client.connect_with(config, server.local_addr().unwrap(), "localhost").unwrap();
        let accepting = async { server.accept().await.unwrap().await.unwrap() };
        let (told, asked) = tokio::join!(accepting, connecting);
        let (asked, tally) = (asked.unwrap(), Arc::new(Tally::default()));
        let mut all = Vec::new();
        for urgency in urgencies {
            let mut sent = told.open_uni().await.unwrap();
            sent.set_priority(-i32::from(urgency)).unwrap();
            let (shared, tally) = (Arc::clone(&stage.shared), Arc::clone(&tally));
            let sending = tokio::spawn(async move {
                let mut pieces = [Bytes::from_static(&[0; 5]), vec![7; PIECE_BYTES].into()];
                let written = write(&shared, (&tally, urgency), &mut sent, &mut pieces).await;
                (written, sent)
            });
            all.push((sending, asked.accept_uni().await.unwrap()));
        }
        let Ok(all) = all.try_into() else { unreachable!("as many as there are urgencies") };
        (all, [server, client])
    }

    /// Reads so much, while the clock goes on as packets that are sent apart need it to.
    async fn read(taken: &mut RecvStream, bite: &mut [u8]) {
        let mut step = pin!(taken.read_exact(bite));
        soon(async {
            while futures::poll!(&mut step).map(Result::unwrap).is_pending() {
                tokio::time::advance(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// A piece that takes several limits to be taken: bytes leave all the time.
    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_but_steadily_is_not_given_up() {
        holds_the_clock();
        let stage = Stage::new(LIMIT);
        let ([(sending, mut taken)], _ends) = begun(&stage, [3]).await;
        // More than what is under way anyhow.
        let mut bite = vec![0; 2 * WINDOW_BYTES];
        let mut limits = 0;
        for _ in 0..PIECE_BYTES / bite.len() {
            read(&mut taken, &mut bite).await;
            stage.later(LIMIT * 3 / 4).await;
            limits += 1;
        }
        assert!(limits > 5);
        read(&mut taken, &mut [0; 5]).await;
        assert_eq!(soon(sending).await.unwrap().0, Ok(()));
        assert_eq!(stage.given_up("send"), 0);
    }

    /// Of one connection nothing is read but what is more urgent, for several limits.
    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_more_urgent_is_given_up_only_after_them() {
        holds_the_clock();
        let stage = Stage::new(LIMIT);
        let ([(urgent, mut first), (other, _second)], _ends) = begun(&stage, [1, 3]).await;
        let mut bite = vec![0; 2 * WINDOW_BYTES];
        for _ in 0..PIECE_BYTES / bite.len() {
            read(&mut first, &mut bite).await;
            stage.later(LIMIT * 3 / 4).await;
        }
        read(&mut first, &mut [0; 5]).await;
        assert_eq!(soon(urgent).await.unwrap().0, Ok(()));
        assert_eq!((other.is_finished(), stage.given_up("send")), (false, 0));
        for _ in 0..8 {
            stage.later(LIMIT / 4).await;
        }
        assert!(soon(other).await.unwrap().0.is_err());
        assert_eq!(stage.given_up("send"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_next_to_nothing_is_given_up() {
        holds_the_clock();
        for bytes in [0, 500] {
            let stage = Stage::new(LIMIT);
            let ([(sending, mut taken)], _ends) = begun(&stage, [3]).await;
            let mut bite = vec![0; bytes];
            for _ in 0..20 {
                read(&mut taken, &mut bite).await;
                stage.later(LIMIT / 4).await;
            }
            assert!(sending.is_finished(), "{bytes} bytes a time keep it");
            assert!(soon(sending).await.unwrap().0.is_err());
            assert_eq!(stage.given_up("send"), 1);
        }
    }
}
