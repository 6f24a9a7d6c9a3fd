//! May this profile play this title, here and now? A pure function.

use crate::accounts::{Account, Window};
use crate::catalog::Snapshot;
use crate::country::Country;
use model::api::Reason;
use model::{TitleId, Version};

/// A play token lives at least this long: video-on-demand manifests are loaded once.
const TOKEN_LIFE_S_MIN: u64 = 6 * 3600;
/// ... and this many times the title's length, for pauses.
const TOKEN_LENGTHS: u64 = 3;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The title.
    pub title: &'a TitleId,
    /// The account of the profile; none: there is no such profile.
    pub account: Option<&'a Account>,
    /// The country of the client's address, if known.
    pub country: Option<Country>,
    /// Edges that could serve.
    pub edges: usize,
    /// Milliseconds since 1970 UTC.
    pub now_ms: u64,
}

/// Yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The version that plays.
    pub version: Version,
    /// From when the token is valid, seconds since 1970 UTC.
    pub not_before: u64,
    /// Until when, likewise.
    pub expires: u64,
}

/// Code of the reason that is a 503 when it is the only one: the same question may be answered
/// otherwise in a second.
pub(crate) const NO_EDGE: &str = "no-edge";
/// Code of the reason that is a 404.
pub(crate) const UNKNOWN_TITLE: &str = "unknown-title";

/// Decides.
///
/// # Errors
/// Every reason that holds, most general first.
pub fn decide(snapshot: &Snapshot, question: Question<'_>) -> Result<Grant, Vec<Reason>> {
    let mut reasons = Vec::new();
    let mut refuse =
        |code: &str, message: String| reasons.push(Reason { code: code.to_owned(), message });
    match question.account {
        None => refuse("unknown-profile", "there is no such profile".to_owned()),
        Some(account) if !account.active => {
            refuse("account-inactive", "the profile's account is not active".to_owned());
        }
        Some(_) => {}
    }
    let title = snapshot.titles.get(question.title);
    match title {
        None => refuse(UNKNOWN_TITLE, format!("there is no title {}", question.title)),
        Some(title) => {
            if let Some((code, message)) = outside(&title.windows, &question) {
                refuse(code, message);
            }
        }
    }
    if question.edges == 0 {
        refuse(NO_EDGE, "no edge can serve now".to_owned());
    }
    match title {
        Some(title) if reasons.is_empty() => {
            let not_before = question.now_ms / 1000;
            let length = title.record.duration_ms.div_ceil(1000);
            let life = TOKEN_LIFE_S_MIN.max(length.saturating_mul(TOKEN_LENGTHS));
            let expires = not_before.saturating_add(life);
            Ok(Grant { version: title.record.version, not_before, expires })
        }
        _ => Err(reasons),
    }
}

/// Why no window is open.
fn outside(windows: &[Window], question: &Question<'_>) -> Option<(&'static str, String)> {
    let here = |window: &&Window| match window.country {
        None => true,
        wanted => wanted == question.country,
    };
    let now = question.now_ms;
    let here: Vec<&Window> = windows.iter().filter(here).collect();
    let begun = |window: &Window| window.from_ms.is_none_or(|from| from <= now);
    let over = |window: &Window| window.until_ms.is_some_and(|until| until <= now);
    let open = |window: &&&Window| begun(window) && !over(window);
    if windows.is_empty() || here.iter().any(|window| open(&window)) {
        return None;
    }
    let Some(country) = question.country else {
        if windows.iter().all(|window| window.country.is_some()) {
            return Some((
                "country-unknown",
                "the country of this address is not known".to_owned(),
            ));
        }
        return Some(when(&here, &begun, "anywhere"));
    };
    if here.is_empty() {
        return Some(("not-in-country", format!("the title does not play in {country}")));
    }
    Some(when(&here, &begun, &format!("in {country}")))
}

/// No window is open here: is one still to come?
fn when(here: &[&Window], begun: &dyn Fn(&Window) -> bool, place: &str) -> (&'static str, String) {
    if here.iter().any(|window| !begun(window)) {
        return ("not-yet-available", format!("the title does not play yet {place}"));
    }
    ("no-longer-available", format!("the title does not play any more {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Title;
    use model::publish::PublishRecord;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;

    fn snapshot(windows: Vec<Window>, duration_ms: u64) -> Snapshot {
        let title: TitleId = "film".parse().unwrap();
        let record = PublishRecord {
            title: title.clone(),
            version: Version::of_index(b"1"),
            name: "Film".into(),
            published_at_ms: 1,
            duration_ms,
            files: vec![],
        };
        let title_entry = Title { record, bytes_max: 0, windows };
        Snapshot { titles: [(title, title_entry)].into(), read_at_ms: NOW }
    }

    fn window(country: &str, from_ms: Option<u64>, until_ms: Option<u64>) -> Window {
        Window { country: country.parse().ok(), from_ms, until_ms }
    }

    fn codes(windows: Vec<Window>, country: Option<&str>) -> Vec<String> {
        let title = "film".parse().unwrap();
        let account = Account { id: "a".into(), active: true };
        let question = Question {
            title: &title,
            account: Some(&account),
            country: country.map(|code| code.parse().unwrap()),
            edges: 1,
            now_ms: NOW,
        };
        let decision = decide(&snapshot(windows, 1000), question);
        decision.err().unwrap_or_default().into_iter().map(|reason| reason.code).collect()
    }

    #[test]
    fn windows() {
        let (past, soon) = (Some(NOW - 1), Some(NOW + 1));
        let table: [(Vec<Window>, Option<&str>, &[&str]); 14] = [
            (vec![], None, &[]),
            (vec![], Some("DE"), &[]),
            (vec![window("DE", None, None)], Some("DE"), &[]),
            (vec![window("DE", None, None)], Some("FR"), &["not-in-country"]),
            (vec![window("DE", None, None)], None, &["country-unknown"]),
            (vec![window("*", None, None)], None, &[]),
            (vec![window("*", soon, None)], None, &["not-yet-available"]),
            (vec![window("*", None, past)], Some("DE"), &["no-longer-available"]),
            (vec![window("DE", soon, None)], Some("DE"), &["not-yet-available"]),
            (vec![window("DE", Some(NOW), soon)], Some("DE"), &[]),
            (vec![window("DE", past, Some(NOW))], Some("DE"), &["no-longer-available"]),
            (
                vec![window("DE", None, past), window("DE", soon, None)],
                Some("DE"),
                &["not-yet-available"],
            ),
            (
                vec![window("DE", None, None), window("*", soon, None)],
                Some("FR"),
                &["not-yet-available"],
            ),
            (vec![window("FR", soon, None), window("*", None, None)], Some("FR"), &[]),
        ];
        for (windows, country, wanted) in table {
            assert_eq!(codes(windows.clone(), country), wanted, "{windows:?} in {country:?}");
        }
    }

    #[test]
    fn every_reason_is_given() {
        let title = "film".parse().unwrap();
        let inactive = Account { id: "a".into(), active: false };
        let mut question = Question {
            title: &title,
            account: Some(&inactive),
            country: None,
            edges: 0,
            now_ms: NOW,
        };
        let given = |question, snapshot: &Snapshot| {
            let reasons = decide(snapshot, question).unwrap_err();
            reasons.into_iter().map(|reason| reason.code).collect::<Vec<_>>()
        };
        let film = snapshot(vec![window("DE", None, None)], 1000);
        assert_eq!(given(question, &film), ["account-inactive", "country-unknown", "no-edge"]);
        question.account = None;
        assert_eq!(
            given(question, &Snapshot::default()),
            ["unknown-profile", "unknown-title", "no-edge"]
        );
    }

    #[test]
    fn a_token_outlives_three_plays_and_six_hours() {
        let title = "film".parse().unwrap();
        let account = Account { id: "a".into(), active: true };
        let question = Question {
            title: &title,
            account: Some(&account),
            country: None,
            edges: 1,
            now_ms: NOW,
        };
        let life = |duration_ms| {
            let grant = decide(&snapshot(vec![], duration_ms), question).unwrap();
            grant.expires - grant.not_before
        };
        assert_eq!(life(60_000), 6 * 3600);
        assert_eq!(life(2 * 3_600_000), 6 * 3600);
        assert_eq!(life(2 * 3_600_000 + 1), 6 * 3600 + 3);
        assert_eq!(life(10 * 3_600_000), 30 * 3600);
    }

    fn any_window() -> impl Strategy<Value = Window> {
        let time = || prop_oneof![Just(None), (NOW - 3..NOW + 3).prop_map(Some)];
        (prop_oneof![Just("DE"), Just("FR"), Just("*")], time(), time())
            .prop_map(|(country, from, until)| window(country, from, until))
    }

    proptest! {
        /// Against the definition: with windows, it plays if and only if one is open here.
        #[test]
        fn it_plays_inside_a_window_only(
            windows in proptest::collection::vec(any_window(), 0..5),
            country in prop_oneof![Just(None), Just(Some("DE")), Just(Some("IT"))],
        ) {
            let mut open = windows.is_empty();
            for window in &windows {
                let here = window.country.is_none() || window.country == country.and_then(|c| c.parse().ok());
                open |= here && window.from_ms.unwrap_or(0) <= NOW && NOW < window.until_ms.unwrap_or(u64::MAX);
            }
            let codes = codes(windows, country);
            prop_assert_eq!(codes.is_empty(), open);
            prop_assert!(codes.len() < 2);
        }
    }
}
