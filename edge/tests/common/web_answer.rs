//! How the scripted web origin answers: conditions and ranges as RFC 9110 sections 13 and 14
//! say, unless a misdeed says otherwise.

use super::web::{Asked, Item, Misdeed, Validator};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write;
use std::ops::Range;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A request. Its body was read and is forgotten.
pub struct Request {
    pub method: String,
    pub target: String,
    pub fields: HeaderMap,
}

impl Request {
    /// The next one of a connection; none at its end.
    pub async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Self> {
        let end = until(stream, buffer, b"\r\n\r\n").await?;
        let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let fields = lines.filter_map(|line| line.split_once(':'));
        let fields = fields
            .map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, HeaderValue::from_str(value.trim()).unwrap())
            })
            .collect();
        let request = Self { method, target, fields };
        if request.field("transfer-encoding") == "chunked" {
            let end = until(stream, buffer, b"0\r\n\r\n").await?;
            buffer.drain(..end);
        }
        let length: usize = request.field("content-length").parse().unwrap_or(0);
        while buffer.len() < length {
            more(stream, buffer).await?;
        }
        buffer.drain(..length);
        Some(request)
    }

    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap_or(""))
    }

    /// As it is remembered.
    pub fn asked(&self) -> Asked {
        Asked {
            method: self.method.clone(),
            target: self.target.clone(),
            fields: self.fields.clone(),
            status: 0,
            sent: 0,
            is_left: false,
            is_over: false,
        }
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut piece = vec![0; 16 << 10];
    match stream.read(&mut piece).await {
        Ok(count @ 1..) => buffer.extend_from_slice(&piece[..count]),
        _ => return None,
    }
    Some(())
}

/// Reads until these bytes have come; where they end.
async fn until(stream: &mut TcpStream, buffer: &mut Vec<u8>, bytes: &[u8]) -> Option<usize> {
    loop {
        if let Some(at) = buffer.windows(bytes.len()).position(|window| window == bytes) {
            return Some(at + bytes.len());
        }
        more(stream, buffer).await?;
    }
}

/// Which bytes follow a head.
pub struct Body {
    pub version: u64,
    pub variant: String,
    /// Of the item.
    pub range: Range<u64>,
    /// No more of them than this.
    pub most: u64,
    pub is_chunked: bool,
    /// Whether the connection goes on.
    pub keeps: bool,
}

impl Body {
    /// How many bytes are sent.
    pub fn sends(&self) -> u64 {
        (self.range.end - self.range.start).min(self.most)
    }

    fn none(keeps: bool) -> Self {
        let variant = String::new();
        Self { version: 0, variant, range: 0..0, most: 0, is_chunked: false, keeps }
    }
}

/// Status, head and body.
pub fn answer(
    request: &Request,
    item: Option<&Item>,
    misdeed: Option<Misdeed>,
) -> (u16, String, Body) {
    let plain = |status: u16, more: &str| {
        let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n{more}\r\n");
        (status, head, Body::none(true))
    };
    match misdeed {
        Some(Misdeed::Garbage) => {
            return (0, "\u{1}\u{2}no HTTP\r\n\r\n".into(), Body::none(false));
        }
        Some(Misdeed::Status(status)) => return plain(status, ""),
        Some(Misdeed::Refuses(status)) if request.fields.contains_key("x-refused") => {
            return plain(status, "");
        }
        Some(Misdeed::NoHead(status)) if request.method == "HEAD" => return plain(status, ""),
        Some(Misdeed::Redirect) => {
            return plain(302, &format!("location: {}\r\n", request.target));
        }
        _ => {}
    }
    let Some(item) = item else { return plain(404, "cache-control: max-age=0\r\n") };
    let mut fields = fields(item, request);
    if !matches!(&*request.method, "GET" | "HEAD") {
        return plain(204, &fields);
    }
    if misdeed != Some(Misdeed::Unconditional)
        && let Some(status) = condition(item, request)
    {
        return match status {
            304 => (304, format!("HTTP/1.1 304 Same\r\n{fields}\r\n"), Body::none(true)),
            _ => plain(status, &fields),
        };
    }
    if let Some(Misdeed::HeaderBomb(count)) = misdeed {
        for number in 0..count {
            let _ = write!(fields, "x-{number}: {}\r\n", "b".repeat(1000));
        }
    }
    content_of(item, request, misdeed, fields)
}

fn etag(item: &Item, request: &Request) -> String {
    let variant = variant(item, request);
    let weak = if item.validator == Validator::Weak { "W/" } else { "" };
    let tag = if item.tag == 0 { String::new() } else { format!("-{}", item.tag) };
    format!("{weak}\"v{}{tag}{variant}\"", item.version)
}

fn date(item: &Item) -> String {
    match item.fields.iter().find(|(name, _)| name == "last-modified") {
        Some((_, told)) => told.clone(),
        None => format!("Mon, 01 Jan 2024 {:02}:00:00 GMT", item.version),
    }
}

fn has_date(item: &Item) -> bool {
    matches!(item.validator, Validator::Date | Validator::Told)
}

fn variant(item: &Item, request: &Request) -> String {
    item.vary.as_ref().map(|name| request.field(name).to_owned()).unwrap_or_default()
}

fn fields(item: &Item, request: &Request) -> String {
    let mut fields = String::new();
    for (name, value) in &item.fields {
        let _ = write!(fields, "{name}: {value}\r\n");
    }
    if let Some(name) = &item.vary {
        let _ = write!(fields, "vary: {name}\r\n");
    }
    let _ = match item.validator {
        Validator::Strong | Validator::Weak => {
            write!(fields, "etag: {}\r\n", etag(item, request))
        }
        Validator::Date => write!(fields, "last-modified: {}\r\n", date(item)),
        Validator::Told | Validator::None => Ok(()),
    };
    fields
}

/// 304 or 412, where the request's condition says so.
fn condition(item: &Item, request: &Request) -> Option<u16> {
    let (etag, date) = (etag(item, request), date(item));
    let has_tag = matches!(item.validator, Validator::Strong | Validator::Weak);
    let has_date = has_date(item);
    let (matching, unmodified) = (request.field("if-match"), request.field("if-unmodified-since"));
    let holds = |field: &str, is_so: bool| field.is_empty() || is_so;
    if !holds(matching, has_tag && matching == etag)
        || !holds(unmodified, has_date && unmodified == date)
    {
        return Some(412);
    }
    let tags = request.field("if-none-match");
    let same = if tags.is_empty() {
        has_date && request.field("if-modified-since") == date
    } else {
        has_tag && tags.split(", ").any(|tag| tag == etag)
    };
    (same && item.status == 200).then_some(304)
}

/// The range that is asked for, if it applies; an error if no byte is in it.
fn range(
    item: &Item,
    request: &Request,
    misdeed: Option<Misdeed>,
) -> Result<Option<Range<u64>>, ()> {
    let (field, condition) = (request.field("range"), request.field("if-range"));
    let applies = match item.validator {
        Validator::Strong => condition == etag(item, request),
        Validator::Date | Validator::Told => condition == date(item),
        Validator::Weak | Validator::None => false,
    };
    if !item.has_ranges || item.status != 200 || !(condition.is_empty() || applies) {
        return Ok(None);
    }
    let Some(spec) = field.strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else {
        return Ok(None);
    };
    let (first, last) = spec.split_once('-').unwrap();
    let (first, last) = (first.parse::<u64>(), last.parse::<u64>());
    let block = |first: u64, most: u64| first..first.saturating_add(most).min(item.bytes);
    let range = match (first, last, misdeed) {
        (Ok(first), _, Some(Misdeed::Endless(most))) => block(first, most),
        (Ok(_), _, Some(Misdeed::Digits(most))) => {
            block(spec.replace('-', "").parse().unwrap(), most)
        }
        (_, last, Some(Misdeed::Beginless)) => {
            0..last.map_or(item.bytes, |last| last.saturating_add(1).min(item.bytes))
        }
        (Ok(_), Ok(last), Some(Misdeed::Strict)) if last >= item.bytes => return Err(()),
        (_, last, Some(Misdeed::NoRange { but_open })) if last.is_ok() || !but_open => {
            return Err(());
        }
        (Ok(first), Ok(last), _) => first..(last + 1).min(item.bytes),
        (Ok(first), Err(_), _) => first..item.bytes,
        (Err(_), Ok(back), _) => item.bytes.saturating_sub(back)..item.bytes,
        _ => return Ok(None),
    };
    if range.start >= range.end { Err(()) } else { Ok(Some(range)) }
}

fn content_of(
    item: &Item,
    request: &Request,
    misdeed: Option<Misdeed>,
    mut fields: String,
) -> (u16, String, Body) {
    let Ok(asked) = range(item, request, misdeed) else {
        let head = format!(
            "HTTP/1.1 416 No\r\ncontent-range: bytes */{}\r\ncontent-length: 0\r\n\r\n",
            item.bytes
        );
        return (416, head, Body::none(true));
    };
    let is_part = asked.is_some() || misdeed == Some(Misdeed::Unasked);
    let status = if is_part { 206 } else { item.status };
    let mut range = asked.unwrap_or(0..item.bytes);
    let mut total = item.bytes;
    match misdeed {
        Some(Misdeed::Unasked) => range = range.end / 2..range.end,
        Some(Misdeed::WrongRange(by)) if is_part => range = range.start + by..range.end + by,
        Some(Misdeed::WrongTotal) if is_part => total += 1,
        Some(Misdeed::Vast(bytes)) if is_part => total = bytes,
        Some(Misdeed::Cap(bytes)) if is_part => range.end = range.end.min(range.start + bytes),
        _ => {}
    }
    if is_part {
        let (first, last) = (range.start, range.end - 1);
        let total = match misdeed {
            Some(Misdeed::NoTotal) => "*".to_owned(),
            _ => total.to_string(),
        };
        let _ = write!(fields, "content-range: bytes {first}-{last}/{total}\r\n");
    } else if item.has_ranges {
        fields.push_str("accept-ranges: bytes\r\n");
    }
    let is_chunked = item.is_chunked || matches!(misdeed, Some(Misdeed::BadChunk(_)));
    let length = range.end - range.start;
    let (promised, most, keeps) = match misdeed {
        Some(Misdeed::Short(by)) => (length + by, length, false),
        Some(Misdeed::Long(by)) => (length - by, length, false),
        Some(
            Misdeed::Reset(at)
            | Misdeed::Cut(at)
            | Misdeed::Change(at)
            | Misdeed::Stall(at)
            | Misdeed::BadChunk(at),
        ) => (length, at, false),
        _ => (length, u64::MAX, true),
    };
    if !is_chunked || misdeed == Some(Misdeed::TwoLengths) {
        let _ = write!(fields, "content-length: {promised}\r\n");
    }
    if is_chunked || misdeed == Some(Misdeed::TwoLengths) {
        fields.push_str("transfer-encoding: chunked\r\n");
    }
    let (version, variant) = (item.version, variant(item, request));
    let body = Body { version, variant, range, most, is_chunked, keeps };
    (status, format!("HTTP/1.1 {status} Said\r\n{fields}\r\n"), body)
}
