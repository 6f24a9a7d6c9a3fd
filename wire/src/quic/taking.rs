//! What is written to a stream, as long as its peer takes it.
//!
//! Invariant: a stream is given up whose peer takes less than [`SEND_BYTES_MIN`] of it within the
//! limit, and none that takes more, however much is written at a time.

use crate::patience::Wait;
use crate::{SEND_BYTES_MIN, Shared};
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

/// Writes all of these.
///
/// # Errors
/// When the stream or its connection has ended, or the peer takes too little of it.
pub async fn write<S>(
    shared: &Shared<S>,
    stream: &mut quinn::SendStream,
    mut pieces: &mut [Bytes],
) -> Result<(), String> {
    let due = || Instant::now() + shared.patience.send;
    let (mut by, mut taken) = (due(), 0);
    while pieces.iter().any(|piece| !piece.is_empty()) {
        // Ends once a part of them is written.
        let written = timeout_at(by, stream.write_chunks(pieces)).await;
        let written = written.map_err(|_| {
            shared.metrics.given_up.count(Wait::Send);
            "the peer takes no bytes".to_owned()
        })?;
        let written = written.map_err(|error| error.to_string())?;
        taken += written.bytes as u64;
        if taken >= SEND_BYTES_MIN {
            (by, taken) = (due(), 0);
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

    /// A piece on its way to a client that reads as it is told to.
    async fn begun(stage: &Stage) -> (Sending, RecvStream, [Endpoint; 2]) {
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
        let mut sent = told.open_uni().await.unwrap();
        let shared = Arc::clone(&stage.shared);
        let sending = tokio::spawn(async move {
            let mut pieces = [Bytes::from_static(&[0; 5]), vec![7; PIECE_BYTES].into()];
            let written = write(&shared, &mut sent, &mut pieces).await;
            (written, sent)
        });
        let taken = asked.unwrap().accept_uni().await.unwrap();
        (sending, taken, [server, client])
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
        let (sending, mut taken, _ends) = begun(&stage).await;
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

    #[tokio::test(start_paused = true)]
    async fn who_takes_next_to_nothing_is_given_up() {
        holds_the_clock();
        for bytes in [0, 500] {
            let stage = Stage::new(LIMIT);
            let (sending, mut taken, _ends) = begun(&stage).await;
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
