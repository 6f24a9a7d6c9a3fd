//! HTTP/3 answers over quinn, without a general HTTP/3 library between: bodies are looked at in
//! the packets they came in, of heads only the status (RFC 9114). No GREASE is sent.

use super::Context;
use super::fields;
use super::slow::Trickle;
use super::tally::{Exchange, Tally};
use super::wire::{Peer, broken};
use crate::Error;
use bytes::Bytes;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Sockets of a load, at most: connections share them.
pub(super) const ENDPOINTS_MAX: usize = 16;
/// A socket's receive buffer: bursts wait here instead of being lost.
const SOCKET_BYTES: usize = 4 << 20;
/// Chunks taken from a stream at a time.
const CHUNKS: usize = 64;
const IDLE_MAX: Duration = Duration::from_secs(60);
/// A frame other than DATA that is longer is refused.
const FRAME_BYTES_MAX: u64 = 64 << 10;
/// H3_NO_ERROR, RFC 9114 section 8.1.
const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);
const DATA: u64 = 0;
const HEADERS: u64 = 1;

pub(super) fn config(
    tls: rustls::ClientConfig,
    stream_window: u32,
    window: u32,
) -> Result<quinn::ClientConfig, Error> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls)
        .map_err(|error| Error::Tls(error.to_string()))?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(stream_window.into())
        .receive_window(window.into())
        .congestion_controller_factory(Arc::new(quinn::congestion::CubicConfig::default()))
        .max_idle_timeout(quinn::IdleTimeout::try_from(IDLE_MAX).ok());
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

pub(super) fn endpoint(peer: SocketAddr) -> std::io::Result<quinn::Endpoint> {
    let own: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own)?;
    // Beyond the machine's limit only root may go.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BYTES).is_err() {
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BYTES);
    }
    quinn::Endpoint::new(
        quinn::EndpointConfig::default(),
        None,
        socket,
        Arc::new(quinn::TokioRuntime),
    )
}

/// One connection until the server leaves it or the load is over.
pub(super) async fn run(
    context: &Context,
    endpoint: &quinn::Endpoint,
    config: quinn::ClientConfig,
    slow: Option<Trickle>,
) -> Result<(), Error> {
    let connection = connect(&context.peer, endpoint, config).await?;
    // The control stream must stay open as long as the connection.
    let mut control = connection.open_uni().await.map_err(quic)?;
    // Its type, then SETTINGS without any: no dynamic table.
    control.write_all(&[0, 4, 0]).await.map_err(|error| broken(&error.to_string()))?;
    let served = async {
        let streams = if slow.is_some() { 1 } else { context.streams };
        let each = (0..streams).map(|_| stream(context, &connection, slow));
        futures::future::try_join_all(each).await.map(drop)
    };
    let done = tokio::select! {
        done = served => done,
        failed = drain(&connection) => failed,
    };
    connection.close(NO_ERROR, b"");
    done
}

async fn connect(
    peer: &Peer,
    endpoint: &quinn::Endpoint,
    config: quinn::ClientConfig,
) -> Result<quinn::Connection, Error> {
    let failed = |reason: String| Error::Unavailable { host: peer.address.to_string(), reason };
    let name = peer.name.to_str();
    endpoint
        .connect_with(config, peer.address, &name)
        .map_err(|error| failed(error.to_string()))?
        .await
        .map_err(|error| failed(error.to_string()))
}

/// Reads what the server says on its own streams, and forgets it.
async fn drain(connection: &quinn::Connection) -> Result<(), Error> {
    loop {
        let mut stream = connection.accept_uni().await.map_err(quic)?;
        tokio::task::spawn_local(async move {
            while let Ok(Some(_)) = stream.read_chunk(4096, true).await {}
        });
    }
}

/// One request after the other.
async fn stream(
    context: &Context,
    connection: &quinn::Connection,
    slow: Option<Trickle>,
) -> Result<(), Error> {
    loop {
        let exchange = match slow {
            Some(_) => Some(context.queue.untimed()),
            None => context.queue.next().await,
        };
        let Some(exchange) = exchange else { return Ok(()) };
        let (mut send, mut receive) = connection.open_bi().await.map_err(quic)?;
        send.write_all(&request(context, &exchange))
            .await
            .map_err(|error| broken(&error.to_string()))?;
        let _ = send.finish();
        let mut answer = Answer::new(exchange);
        let read = match slow {
            Some(slow) => trickle(&mut receive, &mut answer, &context.tally, slow).await,
            None => fast(&mut receive, &mut answer, &context.tally).await,
        };
        match read {
            Ok(()) => answer.end(&context.tally)?,
            Err(quinn::ReadError::Reset(code)) => {
                context.tally.failed(format!("the server reset a stream, error {code}"));
            }
            Err(error) => return Err(answer.fault.unwrap_or_else(|| broken(&error.to_string()))),
        }
    }
}

async fn fast(
    receive: &mut quinn::RecvStream,
    answer: &mut Answer,
    tally: &Tally,
) -> Result<(), quinn::ReadError> {
    let mut chunks = vec![Bytes::new(); CHUNKS];
    while let Some(count) = receive.read_chunks(&mut chunks).await? {
        for chunk in &mut chunks[..count] {
            answer.take(&std::mem::take(chunk), tally)?;
        }
    }
    Ok(())
}

async fn trickle(
    receive: &mut quinn::RecvStream,
    answer: &mut Answer,
    tally: &Tally,
    slow: Trickle,
) -> Result<(), quinn::ReadError> {
    while let Some(chunk) = receive.read_chunk(slow.bytes(), true).await? {
        answer.take(&chunk.bytes, tally)?;
        slow.wait().await;
    }
    Ok(())
}

fn request(context: &Context, exchange: &Exchange) -> Vec<u8> {
    let block = fields::h3_request(&context.authority, &context.path(exchange), context);
    let mut out = Vec::with_capacity(block.len() + 4);
    out.push(1);
    // A varint of two bytes, RFC 9000 section 16: 14 bits.
    let length = u16::try_from(block.len()).unwrap_or(u16::MAX).min((1 << 14) - 1);
    out.extend_from_slice(&(length | 1 << 14).to_be_bytes());
    out.extend_from_slice(&block);
    out
}

/// Where in an answer the stream is.
struct Answer {
    exchange: Exchange,
    /// A frame's type and length, until both are there.
    header: Vec<u8>,
    /// The frame under way.
    frame: Option<(u64, u64)>,
    block: Vec<u8>,
    fault: Option<Error>,
}

impl Answer {
    fn new(exchange: Exchange) -> Self {
        Self { exchange, header: Vec::new(), frame: None, block: Vec::new(), fault: None }
    }

    fn take(&mut self, bytes: &[u8], tally: &Tally) -> Result<(), quinn::ReadError> {
        self.read(bytes, tally).map_err(|fault| {
            self.fault = Some(fault);
            quinn::ReadError::ClosedStream
        })
    }

    fn read(&mut self, mut bytes: &[u8], tally: &Tally) -> Result<(), Error> {
        while !bytes.is_empty() {
            let Some((kind, left)) = &mut self.frame else {
                self.header.push(bytes[0]);
                bytes = &bytes[1..];
                self.begin()?;
                continue;
            };
            let part = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= part as u64;
            match *kind {
                DATA => self.exchange.body(tally, &bytes[..part]),
                HEADERS => self.block.extend_from_slice(&bytes[..part]),
                _ => {}
            }
            bytes = &bytes[part..];
            if *left == 0 {
                self.frame = None;
                self.heads();
            }
        }
        Ok(())
    }

    /// Starts a frame once its type and length are there.
    fn begin(&mut self) -> Result<(), Error> {
        let Some((kind, rest)) = varint(&self.header) else { return Ok(()) };
        let Some((length, _)) = varint(rest) else { return Ok(()) };
        if kind != DATA && length > FRAME_BYTES_MAX {
            return Err(broken("a frame of more than 64 KiB"));
        }
        self.header.clear();
        self.frame = (length > 0).then_some((kind, length));
        Ok(())
    }

    /// A head is whole.
    fn heads(&mut self) {
        if !self.block.is_empty() {
            // Trailers have no status.
            if let Some(status) = fields::h3_status(&std::mem::take(&mut self.block)) {
                self.exchange.status(status);
            }
        }
    }

    fn end(self, tally: &Tally) -> Result<(), Error> {
        if self.frame.is_some() || !self.header.is_empty() {
            return Err(broken("a stream that ends within a frame"));
        }
        self.exchange.end(tally);
        Ok(())
    }
}

/// RFC 9000, section 16.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    let start = u64::from(first & 0x3f);
    Some((number[1..].iter().fold(start, |value, byte| value << 8 | u64::from(*byte)), rest))
}

fn quic(error: quinn::ConnectionError) -> Error {
    broken(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::plan::Target;
    use super::*;
    use std::rc::Rc;
    use std::time::Instant;

    #[test]
    fn an_answer_is_read_whatever_the_pieces_it_comes_in() {
        // An unknown frame, HEADERS, DATA of 2 and, with a two-byte length, of 3.
        let stream = b"\x21\x02xx\x01\x03\0\0\xd9\x00\x02he\x00\x00\x00\x40\x03llo";
        for piece in 1..stream.len() {
            let tally = Tally::new(Rc::from(vec![Target::from_line("/a 5").unwrap()]), 1);
            let mut answer = Answer::new(Exchange::new(0, 0, Instant::now(), true));
            for part in stream.chunks(piece) {
                answer.read(part, &tally).unwrap();
            }
            answer.end(&tally).unwrap();
            assert_eq!((tally.answers.get(), tally.checked.get(), tally.wrong.get()), (1, 1, 0));
        }
        let tally = Tally::new(Rc::from(vec![Target::new("/a")]), 1);
        let mut cut = Answer::new(Exchange::new(0, 0, Instant::now(), true));
        cut.read(&stream[..stream.len() - 1], &tally).unwrap();
        assert!(cut.end(&tally).is_err());
        let mut long = Answer::new(Exchange::new(0, 0, Instant::now(), true));
        assert!(long.read(&[1, 0x80, 0xff, 0xff, 0xff], &tally).is_err());
    }
}
