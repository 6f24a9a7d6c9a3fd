//! The streams that a client opens to send alone (RFC 9114 section 6.2): its control stream, and
//! those of QPACK, on which nothing comes, since it is told to have no table (RFC 9204 section
//! 3.2.3).
//!
//! Invariant: what may not be there, or may not end, ends the connection by the error that the RFC
//! names; of what nobody knows nothing is read.

use super::control::{Broken, Control};
use super::plain::varint;
use super::transport::Stopped;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quinn::{ReadError, RecvStream, VarInt};
use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio_util::sync::CancellationToken;

/// Bytes of a number (RFC 9000 section 16).
const NUMBER_BYTES_MAX: usize = 8;
/// `H3_STREAM_CREATION_ERROR` (RFC 9114 section 8.1), which stops what nobody knows.
const UNKNOWN: VarInt = VarInt::from_u32(0x103);

/// Types of streams (RFC 9114 section 6.2, RFC 9204 section 4.2).
const CONTROL: u64 = 0;
const PUSH: u64 = 1;
const ENCODER: u64 = 2;
const DECODER: u64 = 3;

/// Which of the streams that there is one of has come.
#[derive(Default)]
struct Opened([AtomicBool; 4]);

/// Takes what comes of them as long as there is a connection, and heeds those of our `own`. `going`
/// is cancelled once the client says that it goes.
///
/// # Errors
/// [`Broken`]: by what the connection has to end.
pub async fn listen(
    quic: &quinn::Connection,
    own: Vec<Stopped>,
    going: &CancellationToken,
) -> Result<Infallible, Broken> {
    let (opened, mut streams) = (Opened::default(), FuturesUnordered::new());
    let mut own: FuturesUnordered<_> = own.into_iter().collect();
    loop {
        tokio::select! {
            stream = quic.accept_uni() => match stream {
                Ok(stream) => streams.push(take(stream, &opened, going)),
                // Others are told.
                Err(_) => pending().await,
            },
            Some(taken) = streams.next() => taken?,
            // Nor may the client stop what the server opened.
            Some(Ok(Some(_))) = own.next() => return Err(Broken::Closed),
        }
    }
}

/// Takes all of a stream.
async fn take(
    mut stream: RecvStream,
    opened: &Opened,
    going: &CancellationToken,
) -> Result<(), Broken> {
    // One that ends before it says what it is, is tolerated.
    let Some((kind, first)) = kind(&mut stream).await else { return Ok(()) };
    let place = match kind {
        CONTROL | ENCODER | DECODER => usize::try_from(kind).unwrap_or_default(),
        PUSH => return Err(Broken::Creation),
        _ => {
            // It may have ended.
            let _ = stream.stop(UNKNOWN);
            return Ok(());
        }
    };
    if opened.0[place].swap(true, Relaxed) {
        return Err(Broken::Creation);
    }
    let mut control = (kind == CONTROL).then(Control::default);
    let mut piece = Bytes::from(first);
    loop {
        if let Some(control) = &mut control {
            control.takes(&piece)?;
            if control.goes() {
                going.cancel();
            }
        }
        piece = match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => chunk.bytes,
            // Others tell of that.
            Err(ReadError::ConnectionLost(_)) => return Ok(()),
            Ok(None) => return Err(control.map_or(Broken::Closed, |control| control.ended())),
            Err(_) => return Err(Broken::Closed),
        };
    }
}

/// A stream's type, and what came with it; none where it ends before.
async fn kind(stream: &mut RecvStream) -> Option<(u64, Vec<u8>)> {
    let mut head = Vec::new();
    loop {
        if let Some((kind, rest)) = varint(&head) {
            return Some((kind, rest.to_vec()));
        }
        let more = NUMBER_BYTES_MAX - head.len();
        head.extend_from_slice(&stream.read_chunk(more, true).await.ok()??.bytes);
    }
}
