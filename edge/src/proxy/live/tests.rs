//! How many arriving answers there are, and which is the newest.

use super::*;
use caching::Stored;
use http::HeaderMap;

fn live(engine: &Arc<crate::engine::Engine>, variant: Option<&str>) -> Arc<Live> {
    let fields = HeaderMap::new();
    let selected = |value: &str| (header::ACCEPT, Some(value.to_owned()));
    let stored = Stored { status: StatusCode::OK, fields, requested_ms: 0, received_ms: 0 };
    let head = Head {
        site: "a".into(),
        url: "a/b".into(),
        selecting: variant.into_iter().map(selected).collect(),
        stored,
        body: [1; 16],
        bytes: 0,
        tags: Vec::new(),
        epoch: 0,
        asked_ms: 0,
        fetched_ms: 0,
        seen: heads::Seen::default(),
        read: heads::Read::default(),
    };
    let growing = Growing::new(engine, [1; 16], None, crate::engine::UNVALIDATED_BYTES_MAX);
    let (head, source, status) = (Arc::new(head), Verdict::Origin, StatusCode::OK);
    let began = super::super::fetch::Fetches::default().now();
    Arc::new(Live { head, growing, source, node: None, status, may_be_kept: true, began })
}

#[tokio::test]
async fn there_are_as_many_as_may_be_and_the_newest_of_each_variant() {
    let dir = tempfile::tempdir().unwrap();
    let engine = crate::engine::tests::small(dir.path());
    let (lives, key) = (Lives::default(), |number: usize| KeyId::of("a", &number.to_string()));
    let first = live(&engine, None);
    for number in 0..LIVES_MAX {
        assert!(lives.begin(key(number), &first));
    }
    let other = live(&engine, None);
    assert!(!lives.begin(key(LIVES_MAX), &other), "there are too many");
    assert!(!lives.has(&key(LIVES_MAX)));
    assert!(lives.begin(key(0), &other), "it takes the place of an older one");
    // Whose end is not that of the newer.
    lives.end(&key(0), &first);
    assert!(lives.has(&key(0)));
    lives.end(&key(1), &first);
    assert!(lives.begin(key(LIVES_MAX), &other), "one has ended");
    // Each variant is one.
    lives.forget(&key(2));
    lives.forget(&key(3));
    let variants = ["a", "b"].map(|variant| live(&engine, Some(variant)));
    assert!(variants.iter().all(|variant| lives.begin(key(2), variant)));
    assert!(!lives.begin(key(3), &first));
    let arriving = |number| lives.heads(&key(number)).len();
    assert_eq!((arriving(2), arriving(3)), (2, 0));
    lives.end(&key(2), &variants[0]);
    assert_eq!((arriving(2), lives.begin(key(3), &first)), (1, true));
}
