//! Peers that take little of what is written to their streams, on a clock that the tests advance.

use super::*;
use crate::quic::order::{Order, Tally};
use crate::stalls::{Stage, holds_the_clock, soon};
use caching::Priority;
use futures::FutureExt;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, RecvStream, ServerConfig, TransportConfig};
use std::sync::Arc;
use tokio::task::JoinHandle;

const LIMIT: Duration = Duration::from_secs(2);
/// What the client lets be under way.
const WINDOW_BYTES: usize = 16 << 10;
/// A piece of a body, as it is written at once.
const PIECE_BYTES: usize = 256 << 10;

/// What the client lets be under way, of a stream and of all: little of a stream.
const BY_STREAM: [u32; 2] = [WINDOW_BYTES as u32, 64 << 20];
/// Little of all.
const BY_CONNECTION: [u32; 2] = [1 << 20, WINDOW_BYTES as u32];
/// Answers that share a connection.
const MANY: usize = 8;

type Sending = JoinHandle<(Result<(), Lost>, quinn::SendStream)>;

const fn of_use_in_parts(urgency: u8) -> Priority {
    Priority { urgency, incremental: true }
}

const fn of_use_whole(urgency: u8) -> Priority {
    Priority { urgency, incremental: false }
}

/// Pieces of these priorities on their way to a client that reads as it is told to.
async fn begun<const N: usize>(
    stage: &Stage,
    priorities: [Priority; N],
    [of_stream, of_all]: [u32; 2],
) -> ([(Sending, RecvStream); N], [Endpoint; 2]) {
    let (server, mut client) = stage.tls(&[b"h3"]);
    client.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = Arc::new(QuicServerConfig::try_from(server).unwrap());
    let any = ([127, 0, 0, 1], 0).into();
    let server = Endpoint::server(ServerConfig::with_crypto(crypto), any).unwrap();
    let crypto = Arc::new(QuicClientConfig::try_from(client).unwrap());
    let mut config = ClientConfig::new(crypto);
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(of_stream.into()).receive_window(of_all.into());
    config.transport_config(Arc::new(transport));
    let client = Endpoint::client(any).unwrap();
    let connecting =
        client.connect_with(config, server.local_addr().unwrap(), "localhost").unwrap();
    let accepting = async { server.accept().await.unwrap().await.unwrap() };
    let (told, asked) = tokio::join!(accepting, connecting);
    let (asked, tally) = (asked.unwrap(), Arc::new(Tally::default()));
    let mut all = Vec::new();
    for priority in priorities {
        let (mut ask, answer) = asked.open_bi().await.unwrap();
        ask.write_all(&[0]).await.unwrap();
        let (mut sent, _) = told.accept_bi().await.unwrap();
        let order = Order::new(priority, sent.id().into());
        sent.set_priority(order.first()).unwrap();
        let (shared, tally) = (Arc::clone(&stage.shared), Arc::clone(&tally));
        let sending = tokio::spawn(async move {
            let mut pieces = [Bytes::from_static(&[0; 5]), vec![7; PIECE_BYTES].into()];
            let place = tally.place(order);
            let written = write(&shared, &place, &mut sent, &mut pieces).await;
            (written, sent)
        });
        all.push((sending, answer));
    }
    let Ok(all) = all.try_into() else { unreachable!("as many as there are priorities") };
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

/// Reads so much of whatever comes, and adds up what came of each.
async fn read_all(taken: &mut [RecvStream], read: &mut [usize], mut bytes: usize) {
    soon(async {
        while bytes > 0 {
            tokio::time::advance(Duration::from_millis(1)).await;
            for (taken, read) in taken.iter_mut().zip(read.iter_mut()) {
                let chunk = (bytes > 0).then(|| taken.read_chunk(bytes, true).now_or_never());
                let Some(chunk) = chunk.flatten() else { continue };
                let chunk = chunk.unwrap().unwrap().bytes.len();
                (*read, bytes) = (*read + chunk, bytes - chunk);
            }
        }
    })
    .await;
}

/// Answers of one urgency that are of use in parts, of which the connection lets less be under way
/// than each of them has.
#[tokio::test(start_paused = true)]
async fn those_that_wait_for_their_connection_take_turns() {
    holds_the_clock();
    let stage = Stage::new(LIMIT);
    let (all, _ends) = begun(&stage, [of_use_in_parts(3); MANY], BY_CONNECTION).await;
    let (sending, mut taken): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let (bite, mut read) = (4 * WINDOW_BYTES, [0; MANY]);
    let bites = MANY * PIECE_BYTES / bite;
    for number in 1..=bites {
        read_all(&mut taken, &mut read, bite).await;
        stage.later(LIMIT * 3 / 4).await;
        assert_eq!(stage.given_up("send"), 0, "after {number} of {bites}: {read:?}");
        if number == bites / 2 {
            let (least, most) = (read.iter().min().unwrap(), read.iter().max().unwrap());
            assert!(2 * least > *most, "{read:?}");
        }
    }
    read_all(&mut taken, &mut read, MANY * 5).await;
    assert_eq!(read, [PIECE_BYTES + 5; MANY]);
    for sending in sending {
        assert_eq!(soon(sending).await.unwrap().0, Ok(()));
    }
}

/// The same of those that are of use only whole: nothing comes of the later ones for many limits, but
/// for what they begin with.
#[tokio::test(start_paused = true)]
async fn those_that_are_of_use_whole_leave_one_after_another() {
    holds_the_clock();
    let stage = Stage::new(LIMIT);
    let (all, _ends) = begun(&stage, [of_use_whole(3); MANY], BY_CONNECTION).await;
    let (sending, mut taken): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let (bite, mut read) = (4 * WINDOW_BYTES, [0; MANY]);
    for number in 1..=MANY * PIECE_BYTES / bite {
        read_all(&mut taken, &mut read, bite).await;
        stage.later(LIMIT * 3 / 4).await;
        assert_eq!(stage.given_up("send"), 0, "after {number}: {read:?}");
        let begun = read.iter().rposition(|read| *read > 2 * WINDOW_BYTES).unwrap_or_default();
        let whole = read.iter().take(begun).all(|read| *read == PIECE_BYTES + 5);
        assert!(whole, "after {number}: {read:?}");
    }
    read_all(&mut taken, &mut read, MANY * 5).await;
    assert_eq!(read, [PIECE_BYTES + 5; MANY]);
    for sending in sending {
        assert_eq!(soon(sending).await.unwrap().0, Ok(()));
    }
}

/// The client takes enough in all, and too little of each.
#[tokio::test(start_paused = true)]
async fn who_waits_for_its_connection_is_given_up_only_with_it() {
    holds_the_clock();
    for priority in [of_use_in_parts(3), of_use_whole(3)] {
        are_given_up_only_with_their_connection(priority).await;
    }
}

async fn are_given_up_only_with_their_connection(priority: Priority) {
    let stage = Stage::new(LIMIT);
    let (all, _ends) = begun(&stage, [priority; MANY], BY_CONNECTION).await;
    let (sending, mut taken): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let mut read = [0; MANY];
    for _ in 0..16 {
        read_all(&mut taken, &mut read, 2 * SEND_BYTES_MIN as usize).await;
        stage.later(LIMIT * 3 / 4).await;
        assert_eq!(stage.given_up("send"), 0, "{read:?}");
    }
    for _ in 0..8 {
        stage.later(LIMIT / 4).await;
    }
    assert_eq!(stage.given_up("send"), MANY as u64);
    for sending in sending {
        assert_eq!(soon(sending).await.unwrap().0, Err(Lost::Untaken));
    }
}

/// Another of the same connection and urgency is read all the time.
#[tokio::test(start_paused = true)]
async fn who_waits_for_its_own_window_is_given_up_beside_others() {
    holds_the_clock();
    // Nor is it spared by those behind it.
    for (priority, unread) in
        [(of_use_in_parts(3), 0), (of_use_in_parts(3), 1), (of_use_whole(3), 0)]
    {
        let stage = Stage::new(LIMIT);
        let (both, _ends) = begun(&stage, [priority; 2], BY_STREAM).await;
        let mut both = Vec::from(both);
        let (other, _unread) = both.remove(unread);
        let (sending, mut taken) = both.remove(0);
        let mut bite = vec![0; 2 * WINDOW_BYTES];
        for _ in 0..4 {
            read(&mut taken, &mut bite).await;
            stage.later(LIMIT * 3 / 4).await;
        }
        assert_eq!((sending.is_finished(), stage.given_up("send")), (false, 1));
        assert_eq!(soon(other).await.unwrap().0, Err(Lost::Untaken));
    }
}

/// A piece that takes several limits to be taken: bytes leave all the time.
#[tokio::test(start_paused = true)]
async fn who_reads_slowly_but_steadily_is_not_given_up() {
    holds_the_clock();
    let stage = Stage::new(LIMIT);
    let ([(sending, mut taken)], _ends) = begun(&stage, [of_use_whole(3)], BY_STREAM).await;
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

/// Of one connection nothing is read but what comes before, for several limits.
#[tokio::test(start_paused = true)]
async fn who_waits_for_those_before_it_is_given_up_only_after_them() {
    holds_the_clock();
    for (first, second) in [
        (of_use_whole(1), of_use_whole(3)),
        (of_use_whole(1), of_use_in_parts(3)),
        (of_use_in_parts(1), of_use_in_parts(3)),
        (of_use_whole(3), of_use_whole(3)),
    ] {
        is_given_up_only_after(first, second).await;
    }
}

async fn is_given_up_only_after(first: Priority, second: Priority) {
    let stage = Stage::new(LIMIT);
    let ([(urgent, mut first), (other, _second)], _ends) =
        begun(&stage, [first, second], BY_STREAM).await;
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
        let ([(sending, mut taken)], _ends) = begun(&stage, [of_use_whole(3)], BY_STREAM).await;
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
