//! Requests as players send them, and as they should not.

use super::*;
use http::HeaderValue;
use proptest::prelude::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn of_query(text: &str) -> Read {
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    read(&HeaderMap::new(), Some(&format!("a=1&CMCD={encoded}&b=2")))
}

#[test]
fn the_four_headers_of_version_1() {
    let fields = headers(&[
        (
            "cmcd-request",
            "bl=21300,dl=18500,mtp=48100,nor=\"..%2F300kbps%2Ftrack.m4v\",nrr=\"12323-48763\",su",
        ),
        ("cmcd-object", "br=3200,d=4004,ot=v,tb=6000"),
        ("cmcd-status", "bs,rtp=15000"),
        ("cmcd-session", "cid=\"faec5fc2\",pr=1.08,sf=d,sid=\"6e2fb550\",st=v"),
    ]);
    let Read { verdict, cmcd } = read(&fields, Some("CMCD=br%3D1"));
    assert_eq!(verdict, Verdict::Good);
    insta::assert_snapshot!(cmcd, @r#"bl=21300,br=3200,bs,cid="faec5fc2",d=4004,dl=18500,mtp=48100,ot=v,pr=1.08,rtp=15000,sf=d,sid="6e2fb550",st=v,su,tb=6000,nor="../300kbps/track.m4v",nrr="12323-48763""#);
    let range = Some(Span::From { first: 12323, last: Some(48763) });
    let next = Next { target: "/film/300kbps/track.m4v".into(), range };
    assert_eq!(cmcd.next("/film/900kbps/track.m4v?x=1"), [next]);
}

#[test]
fn the_query_argument() {
    let query = "a=1&CMCD=bl%3D21300%2Cbs%2Ccom.example-key%3D%22x%22%2Cnor%3D%22next%252Em4s%22%2Csid%3D%226e2f%22&b";
    let read = read(&HeaderMap::new(), Some(query));
    assert_eq!(read.verdict, Verdict::Good);
    assert_eq!(read.cmcd.to_string(), "bl=21300,bs,sid=\"6e2f\",nor=\"next.m4s\"");
    assert_eq!(read.cmcd.nor[0].reference.as_ref(), "next.m4s");
    assert_eq!(strip(query).as_deref(), Some("a=1&b"));
}

#[test]
fn what_a_player_announces_is_logged_without_its_secrets_and_shortened() {
    let logged = |text: &str| parse(text).cmcd.to_string();
    assert_eq!(logged(r#"nor="a%2Fb.m4s%3Ftoken%3Dx",nrr="0-9""#), r#"nor="a/b.m4s",nrr="0-9""#);
    assert_eq!(logged(r#"nor="a%0Ab%22%2C%5Cc%C3%A9""#), r#"nor="a%0Ab%22,%5Cc%C3%A9""#);
    assert_eq!(
        logged(r#"v=2,nor=("8.m4s?t=x" "9.m4s";r="5-")"#),
        r#"v=2,nor=("8.m4s" "9.m4s";r="5-")"#
    );
    let long = "x".repeat(100);
    let told = format!("\"...{}/9.m4s\"", "x".repeat(58));
    assert_eq!(logged(&format!("sn=1,nor=\"{long}%2F9.m4s\"")), format!("sn=1,nor={told}"));
    let four = format!("v=2,nor=({})", vec![format!("\"{long}/9.m4s\""); 4].join(" "));
    assert_eq!(logged(&four), format!("v=2,nor=({})", [told.as_str(); 4].join(" ")));
}

#[test]
fn version_2_has_lists() {
    let read = of_query(
        r#"br=(5000;v 128;a),bl=(4000;v 3900;a),ec=("E1" "E 2"),nor=("../v2/8.m4s" "9.m4s";r="0-999"),sn=7,sta=p,v=2,e=ps,x-y=(1 2)"#,
    );
    assert_eq!(read.verdict, Verdict::Good);
    let cmcd = read.cmcd;
    assert_eq!(cmcd.br.of(ObjectType::Audio), Some(128));
    assert_eq!((cmcd.br.max(), cmcd.br.of(ObjectType::Caption)), (Some(5000), None));
    assert_eq!(cmcd.sta, Some(PlayerState::Playing));
    assert_eq!(
        cmcd.to_string(),
        r#"bl=(4000;v 3900;a),br=(5000;v 128;a),ec=("E1" "E 2"),sn=7,sta=p,v=2,nor=("../v2/8.m4s" "9.m4s";r="0-999")"#
    );
    let targets: Vec<_> = cmcd.next("/t/v1/7.m4s").into_iter().map(|next| next.target).collect();
    assert_eq!(targets, ["/t/v2/8.m4s", "/t/v1/9.m4s"]);
}

#[test]
fn a_hint_means_the_same_however_often_it_was_encoded() {
    for (sent, version) in
        [("a%20b.m4s", 1), ("a%2520b.m4s", 1), ("a%20b.m4s", 2), ("x%2F..%2Fa%2520b.m4s", 2)]
    {
        let read = parse(&format!("nor=\"{sent}\",v={version}"));
        let next = read.cmcd.next("/f/1.m4s");
        assert_eq!(next[0].target, "/f/a%20b.m4s", "{sent} of version {version}");
    }
}

#[test]
fn a_range_alone_is_one_of_the_same_object() {
    let next = parse("nor=\"a.mp4\",nrr=\"-1000\"").cmcd.next("/f.mp4");
    let range = Some(Span::Last(1000));
    assert_eq!(next, [Next { target: "/a.mp4".into(), range }]);
    let next = parse("nrr=\"500-\"").cmcd.next("/f.mp4?id=1&CMCD=nrr%3D%22500-%22");
    let range = Some(Span::From { first: 500, last: None });
    assert_eq!(next, [Next { target: "/f.mp4?id=1".into(), range }]);
}

#[test]
fn verdicts() {
    let cases = [
        ("", Verdict::Good),
        ("br=1", Verdict::Good),
        ("unknown=1", Verdict::Good),
        ("br=1,bl=x", Verdict::Partial),
        ("br=1,,bl", Verdict::Partial),
        ("br=1.5", Verdict::Bad),
        ("br=-1", Verdict::Bad),
        ("br=9999999999999999", Verdict::Bad),
        ("br=\"1\"", Verdict::Bad),
        ("ot=film", Verdict::Bad),
        ("pr=1e3", Verdict::Bad),
        ("pr=inf", Verdict::Bad),
        ("bs=1", Verdict::Bad),
        ("nrr=\"9-1\"", Verdict::Bad),
        ("nrr=\"-0\"", Verdict::Bad),
        ("nrr=\"-\"", Verdict::Bad),
        ("sid=\"a", Verdict::Bad),
        ("sid=\"a\u{7}\"", Verdict::Bad),
    ];
    for (text, verdict) in cases {
        assert_eq!(of_query(text).verdict, verdict, "{text}");
    }
    let sid = |chars: usize| format!("sid=\"{}\"", "ä".repeat(chars));
    assert_eq!(of_query(&sid(128)).verdict, Verdict::Good);
    assert_eq!(of_query(&sid(129)).verdict, Verdict::Bad);
    let none = HeaderMap::new();
    assert_eq!(read(&none, None).verdict, Verdict::Absent);
    assert_eq!(read(&none, Some("cmcd=br%3D1")).verdict, Verdict::Absent);
    assert_eq!(read(&none, Some("CMCD=%zz")).verdict, Verdict::Bad);
    let spelled = read(&none, Some("%43MCD=br%3D1"));
    assert_eq!(spelled.verdict, read(&none, Some("CMCD=br%3D1")).verdict);
    assert_eq!(read(&none, Some("CMCD=%ff")).verdict, Verdict::Bad);
    assert_eq!(
        read(&none, Some(&format!("CMCD={}", "x".repeat(20_000)))).verdict,
        Verdict::TooLong
    );
    let long = "a".repeat(3000);
    let fields = headers(&[("cmcd-request", &long), ("cmcd-status", &long)]);
    assert_eq!(read(&fields, None).verdict, Verdict::TooLong);
    let many = "bs,".repeat(100);
    assert_eq!(of_query(&many).verdict, Verdict::Partial);
}

#[test]
fn only_the_argument_itself_is_stripped() {
    let cases = [
        ("CMCD=x", None),
        ("CMCD", None),
        ("", None),
        ("a&CMCD=1&b=2&CMCD=3", Some("a&b=2")),
        ("xCMCD=1&CMCDx=2", Some("xCMCD=1&CMCDx=2")),
        ("b=1&a=2", Some("b=1&a=2")),
        ("%43MCD=x", None),
        ("a&%43%4d%43%44=1&CMCD", Some("a")),
        ("%43MC=1&%CMCD=2&%2543MCD=3", Some("%43MC=1&%CMCD=2&%2543MCD=3")),
    ];
    for (query, expected) in cases {
        assert_eq!(strip(query).as_deref(), expected, "{query}");
    }
}

proptest! {
    #[test]
    fn nothing_a_client_writes_panics_or_grows(text in ".{0,600}", target in "/[a-z/]{0,20}") {
        let read = parse(&text);
        prop_assert!(read.cmcd.to_string().len() <= LOG_BYTES_MAX);
        for next in read.cmcd.next(&target) {
            check(&next.target)?;
        }
    }

    #[test]
    fn near_cmcd_is_read_and_what_is_logged_reads_the_same(
        pairs in prop::collection::vec(
            ("(bl|br|bs|nor|nrr|ot|pr|sid|st|su|v|x-y|ec)", "(|=|=\\?1|=[0-9.]{1,5}|=\"[ -~]{0,12}\"|=\\((\"[a-z./]{1,9}\";r=\"[0-9-]{1,4}\" )*\\)|=[va]{1,2})"),
            0..12,
        ),
    ) {
        let text: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}{value}")).collect();
        let first = parse(&text.join(",")).cmcd;
        for next in first.next("/a/b/c") {
            check(&next.target)?;
        }
        let (nor, nrr) = (Vec::new(), None);
        // Of what comes next the log has no query, and only the end of what is long.
        let again = parse(&first.to_string()).cmcd;
        prop_assert_eq!(&again.nrr, &first.nrr);
        prop_assert_eq!(
            Cmcd { nor: nor.clone(), nrr, ..again },
            Cmcd { nor, nrr, ..first }
        );
    }

    #[test]
    fn a_hint_never_leaves_its_root(reference in "([a-z]{0,2}|\\.|\\.\\.|/|//|%2e|%2F|%5c|\\\\|:|\\?|#|%00|%|é){0,12}") {
        for version in [1, 2] {
            let sent = reference.replace('\\', "\\\\");
            for next in parse(&format!("nor=\"{sent}\",v={version}")).cmcd.next("/a/b") {
                check(&next.target)?;
            }
        }
    }

    #[test]
    fn a_query_keeps_all_but_cmcd(arguments in prop::collection::vec("(CMCD|%43MCD|[a-zA-Z]{1,5})(=[a-z%=]{0,5})?", 0..6)) {
        let query = arguments.join("&");
        let kept: Vec<_> = arguments.iter().filter(|one| !matches!(one.split('=').next(), Some("CMCD" | "%43MCD"))).cloned().collect();
        prop_assert_eq!(strip(&query).unwrap_or_default(), kept.join("&"));
    }
}

/// A target that an origin form allows, without a way up.
fn check(target: &str) -> Result<(), TestCaseError> {
    let path = target.split('?').next().unwrap_or_default();
    prop_assert!(path.starts_with('/') && !path.starts_with("//"), "{target}");
    prop_assert!(
        target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\'),
        "{target}"
    );
    prop_assert!(!path.split('/').any(|segment| segment == ".."), "{target}");
    let lower = path.to_ascii_lowercase();
    prop_assert!(
        !["%2e", "%2f", "%5c", "%00"].iter().any(|escape| lower.contains(escape)),
        "{target}"
    );
    prop_assert!(target.parse::<http::uri::PathAndQuery>().is_ok(), "{target}");
    Ok(())
}
