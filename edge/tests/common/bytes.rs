//! Connections of which a story writes each byte itself, and what comes back. Included by path
//! where it is used.

use super::common::Edge;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// No connection here lives this long: the listener's own limits are shorter, or the end comes
/// with the last answer.
const END_WITHIN: Duration = Duration::from_secs(60);

/// Where an edge listens without TLS.
pub fn address(edge: &Edge) -> String {
    edge.http.strip_prefix("http://").unwrap().to_owned()
}

/// Sends bytes, perhaps the end of them, too, and reads to the end. A reset is an end as well.
pub async fn exchange(address: &str, bytes: &[u8], is_ended: bool) -> Vec<u8> {
    let stream = TcpStream::connect(address).await.unwrap();
    exchange_on(stream, bytes, bytes.len(), is_ended).await
}

/// The same on this connection, so many bytes at a time.
pub async fn exchange_on(
    stream: impl AsyncRead + AsyncWrite,
    bytes: &[u8],
    part_bytes: usize,
    is_ended: bool,
) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut read = Vec::new();
    let sent = async {
        for part in bytes.chunks(part_bytes.max(1)) {
            // The peer may have answered and closed already.
            let _ = writer.write_all(part).await;
            let _ = writer.flush().await;
            tokio::task::yield_now().await;
        }
        if is_ended {
            let _ = writer.shutdown().await;
        }
        // Held until the answers are read.
        writer
    };
    let read_all = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            read.extend_from_slice(&buffer[..count]);
        }
    };
    let both = async { tokio::join!(sent, read_all) };
    assert!(tokio::time::timeout(END_WITHIN, both).await.is_ok(), "no end: {}", show(bytes));
    read
}

/// As a message has it.
pub fn show(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(300)];
    bytes.escape_ascii().to_string()
}

/// The answers' statuses and what their bodies tell.
pub fn answers(read: &[u8]) -> Vec<(u16, String)> {
    let mut rest = read;
    let mut found = Vec::new();
    while let Some(line) = rest.strip_prefix(b"HTTP/1.1 ").or(rest.strip_prefix(b"HTTP/1.0 ")) {
        let status = std::str::from_utf8(&line[..3]).unwrap().parse().unwrap();
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(rest[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .map_or(0, |field| field.split("\r\n").next().unwrap().parse::<usize>().unwrap());
        let length = if status == 100 { 0 } else { length };
        found.push((status, String::from_utf8(rest[end..end + length].to_vec()).unwrap()));
        rest = &rest[end + length..];
    }
    assert!(rest.is_empty(), "not an answer: {}", show(rest));
    found.retain(|(status, _)| *status != 100);
    found
}
