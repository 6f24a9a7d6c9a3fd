//! Credentials asked of real servers, which answer as AWS' own do.

use super::*;
use crate::s3::Settings;
use axum::Router;
use axum::extract::State;
use axum::routing::{get, put};
use futures::FutureExt;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn keys(id: &str) -> Keys {
    Keys { id: id.to_owned(), secret: "s".to_owned(), token: None }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn either_clock_ends_them() {
    let (wall, now) = (SystemTime::now(), Instant::now());
    let held = Held::new(keys("a"), Some(wall + secs(3600)), wall, now);
    assert_eq!(held.age(wall, now), Age::Good);
    assert_eq!(held.age(wall + secs(3301), now), Age::Renew);
    // A wall clock that stands still, and one that jumps.
    assert_eq!(held.age(wall, now + secs(3301)), Age::Renew);
    assert_eq!(held.age(wall, now + secs(3600)), Age::Expired);
    assert_eq!(held.age(wall + secs(3600), now), Age::Expired);
    let short = Held::new(keys("a"), Some(wall + secs(40)), wall, now);
    assert_eq!(short.age(wall + secs(29), now + secs(29)), Age::Good);
    assert_eq!(short.age(wall + secs(30), now + secs(30)), Age::Renew);
    let late = Held::new(keys("a"), Some(wall - secs(1)), wall, now);
    assert_eq!(late.age(wall, now), Age::Expired);
}

/// Serves at a port of its own; returns `http://IP:PORT`.
fn serve(router: Router) -> String {
    let listener = service::listen::bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// What such a server gives: keys that are numbered, and live so long.
fn given(number: usize, lives: Duration) -> String {
    let expires = Timestamp::try_from(SystemTime::now() + lives).unwrap();
    format!(
        "{{\"Code\":\"Success\",\"LastUpdated\":\"2026-01-01T00:00:00Z\",\"Type\":\"AWS-HMAC\",\
         \"AccessKeyId\":\"key-{number}\",\"SecretAccessKey\":\"s\",\"Token\":\"t\",\
         \"Expiration\":\"{expires}\"}}"
    )
}

fn from_env(env: &[(&str, &str)]) -> Arc<Credentials> {
    let of = |name: &str| {
        env.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned())
    };
    let source = Source::find("edge.sites.a", &Settings::default(), &of).unwrap();
    Arc::new(Credentials::new(source.expect("not anonymous"), |_| {}))
}

/// The keys that a hundred requests at a time get.
async fn a_hundred(credentials: &Arc<Credentials>) -> Vec<Result<String, String>> {
    let get = || {
        let credentials = credentials.clone();
        tokio::spawn(async move { credentials.get().await })
    };
    let tasks: Vec<_> = (0..100).map(|_| get()).collect();
    let mut got = Vec::new();
    for task in tasks {
        let keys = task.await.unwrap();
        got.push(keys.map(|keys| keys.id.clone()).map_err(|fault| fault.to_string()));
    }
    got
}

/// A container's server, which wants `the-token`; counts who asks.
fn container() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answer = async move |fields: HeaderMap| {
        let number = count.fetch_add(1, SeqCst) + 1;
        if fields.get("authorization").is_none_or(|token| token != "the-token") {
            return Err(StatusCode::UNAUTHORIZED);
        }
        Ok(given(number, secs(3600)))
    };
    (serve(Router::new().route("/role", get(answer))) + "/role", asked)
}

#[tokio::test]
async fn a_hundred_requests_ask_a_credentials_server_once() {
    let (url, asked) = container();
    let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str());
    let credentials = from_env(&[full, ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "the-token")]);
    assert_eq!(a_hundred(&credentials).await, vec![Ok("key-1".to_owned()); 100]);
    assert_eq!(asked.load(SeqCst), 1);
}

#[tokio::test]
async fn a_failure_is_shared_by_all_who_wait_for_it() {
    let (url, asked) = container();
    let credentials = from_env(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str())]);
    for got in a_hundred(&credentials).await {
        let fault = got.unwrap_err();
        assert!(fault.contains("401"), "{fault}");
    }
    assert_eq!(asked.load(SeqCst), 1);
}

/// An instance's metadata service, as far as it is asked.
struct Imds {
    role: &'static str,
    /// How long the n-th keys live, from 1.
    lives: fn(usize) -> Duration,
    /// In place of the n-th keys.
    answer: fn(usize) -> Option<(StatusCode, &'static str)>,
    sessions: AtomicUsize,
    asked: AtomicUsize,
}

impl Default for Imds {
    fn default() -> Self {
        Self {
            role: "edge-role",
            lives: |_| secs(3600),
            answer: |_| None,
            sessions: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        }
    }
}

impl Imds {
    /// Starts it; a session's token is good for whoever names the last one.
    fn start(self) -> (Arc<Self>, Arc<Credentials>) {
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let imds = Arc::new(self);
        let router = Router::new()
            .route("/latest/api/token", put(Self::token))
            .route(ROLES, get(Self::roles))
            .route(&format!("{ROLES}edge-role"), get(Self::keys));
        let url = serve(router.with_state(imds.clone())) + "/";
        (imds, from_env(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)]))
    }

    async fn token(State(imds): State<Arc<Self>>, fields: HeaderMap) -> Result<String, StatusCode> {
        let life =
            fields.get("x-aws-ec2-metadata-token-ttl-seconds").ok_or(StatusCode::BAD_REQUEST)?;
        let life = life.to_str().ok().and_then(|life| life.parse::<u32>().ok());
        if !life.is_some_and(|life| (1..=21_600).contains(&life)) {
            return Err(StatusCode::BAD_REQUEST);
        }
        Ok(format!("session-{}", imds.sessions.fetch_add(1, SeqCst) + 1))
    }

    fn knows(&self, fields: &HeaderMap) -> Result<(), StatusCode> {
        let session = format!("session-{}", self.sessions.load(SeqCst));
        let given = fields.get("x-aws-ec2-metadata-token").is_some_and(|token| *token == session);
        if given { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
    }

    async fn roles(State(imds): State<Arc<Self>>, fields: HeaderMap) -> Result<String, StatusCode> {
        imds.knows(&fields)?;
        if imds.role.is_empty() { Err(StatusCode::NOT_FOUND) } else { Ok(imds.role.to_owned()) }
    }

    async fn keys(
        State(imds): State<Arc<Self>>,
        fields: HeaderMap,
    ) -> Result<(StatusCode, String), StatusCode> {
        imds.knows(&fields)?;
        let number = imds.asked.fetch_add(1, SeqCst) + 1;
        let instead = (imds.answer)(number).map(|(status, text)| (status, text.to_owned()));
        Ok(instead.unwrap_or_else(|| (StatusCode::OK, given(number, (imds.lives)(number)))))
    }
}

#[tokio::test]
async fn an_instance_gives_its_roles_keys_once_for_all_who_wait() {
    let (imds, credentials) = Imds::default().start();
    assert_eq!(a_hundred(&credentials).await, vec![Ok("key-1".to_owned()); 100]);
    let keys = credentials.get().await.unwrap();
    assert_eq!(keys.token.as_deref(), Some("t"));
    assert_eq!((imds.sessions.load(SeqCst), imds.asked.load(SeqCst)), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instances_keys_are_renewed_before_they_expire_by_one_who_asks() {
    let lives = |number| if number == 1 { secs(3) } else { secs(3600) };
    let (imds, credentials) = Imds { lives, ..Imds::default() }.start();
    let deadline = Instant::now() + secs(30);
    while !a_hundred(&credentials).await.contains(&Ok("key-2".to_owned())) {
        assert!(Instant::now() < deadline, "never renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(a_hundred(&credentials).await, vec![Ok("key-2".to_owned()); 100]);
    assert_eq!((imds.sessions.load(SeqCst), imds.asked.load(SeqCst)), (2, 2));
}

#[tokio::test]
async fn who_asks_while_keys_are_good_neither_waits_for_new_ones_nor_takes_them_along() {
    let (imds, credentials) = Imds::default().start();
    assert_eq!(credentials.get().await.unwrap().id, "key-1");
    let now = Some((SystemTime::now(), Instant::now()));
    credentials.known().held.as_mut().unwrap().renew = now;
    // Asked once, and gone.
    let got = credentials.get().now_or_never().expect("the old ones are good");
    assert_eq!(got.unwrap().id, "key-1");
    drop(credentials.asking.lock().await);
    assert_eq!(credentials.get().await.unwrap().id, "key-2");
    assert_eq!(imds.asked.load(SeqCst), 2);
}

#[tokio::test]
async fn an_instance_without_keys_says_why() {
    let no_role = Imds { role: "", ..Imds::default() };
    let odd_role = Imds { role: "../../user-data", ..Imds::default() };
    let refused = Imds {
        answer: |_| {
            let text =
                "{\"Code\":\"AssumeRoleUnauthorizedAccess\",\"Message\":\"EC2 cannot assume\"}";
            Some((StatusCode::OK, text))
        },
        ..Imds::default()
    };
    let broken = Imds { answer: |_| Some((StatusCode::OK, "<html>")), ..Imds::default() };
    let ill = Imds { answer: |_| Some((StatusCode::BAD_GATEWAY, "")), ..Imds::default() };
    for (imds, why) in [
        (no_role, "the instance has no role"),
        (odd_role, "the instance has no role"),
        (refused, "AssumeRoleUnauthorizedAccess EC2 cannot assume"),
        (broken, "not credentials, at 1:1"),
        (ill, "502"),
    ] {
        let (_imds, credentials) = imds.start();
        let fault = credentials.get().await.unwrap_err().to_string();
        assert!(fault.contains(why), "{fault}");
        assert!(fault.contains("security-credentials/"), "{fault}");
    }
}

#[tokio::test]
async fn a_machine_that_is_no_instance_is_said_to_have_no_keys() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let credentials = from_env(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)]);
    let fault = credentials.get().await.unwrap_err().to_string();
    assert!(fault.contains(&format!("{url}/latest/api/token")), "{fault}");
}
