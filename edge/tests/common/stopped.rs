//! A client that takes of an answer over HTTP/1.1 what a story says, and stops.

use super::Edge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What the kernel of one that stops at once holds for it.
pub const SMALL_BUFFER_BYTES: u32 = 8 << 10;

/// A client that has read the head of a 200 or 206, and perhaps a few bytes of the body.
pub struct Stopped {
    stream: TcpStream,
    /// Read, and not taken.
    read: Vec<u8>,
    /// Bytes of the body that are not taken.
    left: usize,
}

impl Stopped {
    pub async fn at(edge: &Edge, path: &str) -> Self {
        Self::with_buffer(edge, path, SMALL_BUFFER_BYTES).await
    }

    /// One whose kernel holds so much for it.
    pub async fn with_buffer(edge: &Edge, path: &str, buffer_bytes: u32) -> Self {
        Self::asking(edge, path, "", buffer_bytes).await
    }

    /// One that asks for what is from that byte on.
    pub async fn from(edge: &Edge, path: &str, (byte, buffer_bytes): (usize, u32)) -> Self {
        Self::asking(edge, path, &format!("range: bytes={byte}-\r\n"), buffer_bytes).await
    }

    async fn asking(edge: &Edge, path: &str, fields: &str, buffer_bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(buffer_bytes).unwrap();
        let addr = edge.http.strip_prefix("http://").unwrap();
        let mut stream = socket.connect(addr.parse().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        let end = loop {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0, "the head of {path}");
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let read = head.split_off(end);
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = if fields.is_empty() { "200" } else { "206" };
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{path}: {head}");
        let length = head.split("content-length: ").nth(1).unwrap();
        let left = length.split("\r\n").next().unwrap().parse().unwrap();
        Self { stream, read, left }
    }

    /// Bytes of the body that it has not taken.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next bytes of the body: so many, or what is left.
    pub async fn takes(&mut self, bytes: usize) -> Vec<u8> {
        let bytes = bytes.min(self.left);
        while self.read.len() < bytes {
            assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "cut");
        }
        self.left -= bytes;
        let after = self.read.split_off(bytes);
        std::mem::replace(&mut self.read, after)
    }

    /// All the bytes that come, to the end or until it is cut.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read.len() < self.left {
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        self.left = 0;
        std::mem::take(&mut self.read)
    }
}
