//! An origin that reads HTTP/1.1 byte by byte, as strictly as can be, and tells all it saw: what
//! it can't read is a complaint. Included by path where it is used.

use nearcast_edge::Settings;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as the origin read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `METHOD TARGET`.
    pub line: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    /// None if the connection ended before it was whole.
    pub body: Option<Vec<u8>>,
}

/// What the origin saw.
#[derive(Clone, Default)]
pub struct Raw {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    complaints: Arc<Mutex<Vec<String>>>,
}

/// An edge before it, for any host.
pub fn settings(dir: &Path, raw: &Raw) -> Settings {
    Settings { control_plane: None, ..super::common::settings(dir, &raw.url) }
}

impl Raw {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let raw = Self { url, ..Self::default() };
        let own = raw.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let own = own.clone();
                tokio::spawn(async move { own.serve(stream).await });
            }
        });
        raw
    }

    /// What came since the last time.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// What it could not read.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let Some(head) = until(&mut stream, &mut bytes, b"\r\n\r\n").await else {
                if !bytes.is_empty() {
                    self.complain("bytes after the last request", &bytes);
                }
                return;
            };
            let seen = match parsed(&head) {
                Ok(seen) => seen,
                Err(reason) => return self.complain(reason, &head),
            };
            let place = {
                let mut all = self.seen.lock().unwrap();
                all.push(seen.clone());
                all.len() - 1
            };
            match body(&mut stream, &mut bytes, &seen).await {
                Err(reason) => return self.complain(reason, &head),
                Ok(None) => return,
                Ok(whole) => {
                    if let Some(kept) = self.seen.lock().unwrap().get_mut(place) {
                        kept.body = whole;
                    }
                }
            }
            let text = format!("answer to {}", seen.line);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn complain(&self, reason: &str, bytes: &[u8]) {
        self.complaints.lock().unwrap().push(format!("{reason}: {}", bytes.escape_ascii()));
    }
}

/// Bytes up to and with `end`; none at the end of the connection.
async fn until(stream: &mut TcpStream, bytes: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(place) = bytes.windows(end.len()).position(|window| window == end) {
            return Some(bytes.drain(..place + end.len()).collect());
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

async fn exactly(stream: &mut TcpStream, bytes: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while bytes.len() < count {
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(bytes.drain(..count).collect())
}

fn parsed(head: &[u8]) -> Result<Seen, &'static str> {
    let head = std::str::from_utf8(head).map_err(|_| "not UTF-8")?;
    let mut lines = head.strip_suffix("\r\n\r\n").unwrap().split("\r\n");
    if head.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        return Err("a line end within a line");
    }
    let line = lines.next().unwrap().strip_suffix(" HTTP/1.1").ok_or("another version")?;
    if line.split(' ').count() != 2 || !line.split(' ').nth(1).unwrap().starts_with('/') {
        return Err("no method and path");
    }
    let field = |line: &str| {
        let (name, value) = line.split_once(": ").ok_or("a line that is no field")?;
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if is_name { Ok((name.to_ascii_lowercase(), value.to_owned())) } else { Err("an odd name") }
    };
    let fields: Vec<_> = lines.map(field).collect::<Result<_, _>>()?;
    let count = |name: &str| fields.iter().filter(|(known, _)| known == name).count();
    if count("host") != 1 {
        return Err("not one host");
    }
    if count("content-length") + count("transfer-encoding") > 1 {
        return Err("not one length");
    }
    Ok(Seen { line: line.to_owned(), fields, body: None })
}

async fn body(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    seen: &Seen,
) -> Result<Option<Vec<u8>>, &'static str> {
    let field = |name: &str| seen.fields.iter().find(|(known, _)| known == name);
    if let Some((_, length)) = field("content-length") {
        let is_plain = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|_| is_plain).ok_or("an odd length")?;
        return Ok(exactly(stream, bytes, length).await);
    }
    let Some((_, coding)) = field("transfer-encoding") else { return Ok(Some(Vec::new())) };
    if coding != "chunked" {
        return Err("another coding");
    }
    let mut whole = Vec::new();
    loop {
        let Some(line) = until(stream, bytes, b"\r\n").await else { return Ok(None) };
        let size = std::str::from_utf8(&line).unwrap_or("").trim_end();
        let is_plain = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size =
            usize::from_str_radix(size, 16).ok().filter(|_| is_plain).ok_or("an odd chunk")?;
        let Some(chunk) = exactly(stream, bytes, size + 2).await else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err("an odd chunk");
        }
        whole.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return Ok(Some(whole));
        }
    }
}
