//! A web origin whose answers wait, before their heads or in their bodies, until they are let go.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{StatusCode, header};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// One thing that the origin has: its version makes its bytes and its ETag.
#[derive(Clone)]
pub struct Thing {
    pub version: u8,
    pub bytes: usize,
    pub tags: &'static str,
    pub etag: bool,
}

impl Thing {
    pub fn body(&self) -> Vec<u8> {
        let byte = |place: usize| (place.wrapping_mul(31) ^ (place >> 10)) as u8;
        (0..self.bytes).map(|place| byte(place) ^ self.version.wrapping_mul(97)).collect()
    }

    pub fn etag(&self) -> String {
        format!("\"v{}\"", self.version)
    }
}

/// A web origin that counts what it is asked, and holds bodies back when told.
#[derive(Clone)]
pub struct Web {
    pub url: String,
    pub things: Arc<Mutex<HashMap<String, Thing>>>,
    pub asked: Arc<Mutex<Vec<String>>>,
    /// Requests that wait for their heads.
    pub asking: Arc<Mutex<Vec<String>>>,
    pub heads: Arc<watch::Sender<bool>>,
    pub open: Arc<watch::Sender<bool>>,
}

impl Web {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            things: Arc::default(),
            asked: Arc::default(),
            asking: Arc::default(),
            heads: Arc::new(watch::channel(true).0),
            open: Arc::new(watch::channel(true).0),
        };
        let router = Router::new().fallback(answer).with_state(web.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        web
    }

    pub fn has(&self, path: &str, version: u8, bytes: usize, tags: &'static str) -> Thing {
        self.has_thing(path, Thing { version, bytes, tags, etag: true })
    }

    pub fn has_thing(&self, path: &str, thing: Thing) -> Thing {
        self.things.lock().unwrap().insert(path.to_owned(), thing.clone());
        thing
    }

    pub fn asking(&self, path: &str) -> bool {
        self.asking.lock().unwrap().iter().any(|asking| asking == path)
    }

    /// What it was asked since the last time, as `PATH STATUS`.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

pub async fn answer(State(web): State<Web>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let path = head.uri.path().to_owned();
    let field = |name: header::HeaderName| {
        head.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let thing = web.things.lock().unwrap().get(&path).cloned();
    web.asking.lock().unwrap().push(path.clone());
    web.heads.subscribe().wait_for(|open| *open).await.unwrap();
    let told = |status: u16| web.asked.lock().unwrap().push(format!("{path} {status}"));
    let response = Response::builder();
    let Some(thing) = thing else {
        told(404);
        return response.status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap();
    };
    let response = if thing.etag { response.header(header::ETAG, thing.etag()) } else { response };
    let response = response
        .header("x-version", u32::from(thing.version))
        .header(header::CACHE_CONTROL, "max-age=3600")
        .header("surrogate-key", thing.tags);
    if field(header::IF_NONE_MATCH).is_some_and(|etag| etag == thing.etag()) {
        told(304);
        return response.status(StatusCode::NOT_MODIFIED).body(Body::empty()).unwrap();
    }
    if field(header::IF_MATCH).is_some_and(|etag| etag != thing.etag()) {
        told(412);
        return response.status(StatusCode::PRECONDITION_FAILED).body(Body::empty()).unwrap();
    }
    let (body, total) = (thing.body(), thing.bytes);
    let range = field(header::RANGE)
        .filter(|_| field(header::IF_RANGE).is_none_or(|etag| etag == thing.etag()));
    let Some(range) = range else {
        told(200);
        let length = response.header(header::CONTENT_LENGTH, total);
        return length.body(held(&web, body)).unwrap();
    };
    let (start, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let last = last.parse().unwrap_or(total - 1).min(total - 1);
    told(206);
    let part = body[start..=last].to_vec();
    response
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::CONTENT_RANGE, format!("bytes {start}-{last}/{total}"))
        .header(header::CONTENT_LENGTH, part.len())
        .body(held(&web, part))
        .unwrap()
}

/// The first bytes at once, the rest once the origin is open.
pub fn held(web: &Web, body: Vec<u8>) -> Body {
    let is_open = web.open.subscribe();
    let (first, rest) = body.split_at(body.len().min(1000));
    let pieces = [Bytes::copy_from_slice(first), Bytes::copy_from_slice(rest)];
    Body::from_stream(futures::stream::unfold(0, move |number| {
        let (pieces, mut is_open) = (pieces.clone(), is_open.clone());
        async move {
            if number == 1 {
                is_open.wait_for(|open| *open).await.ok()?;
            }
            let piece = pieces.get(number)?.clone();
            Some((Ok::<_, std::io::Error>(piece), number + 1))
        }
    }))
}
