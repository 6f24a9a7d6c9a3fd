//! Names of tracks, languages and labels.

use super::Error;
use model::TrackId;
use std::collections::BTreeSet;

/// ISO 639-2 codes (terminology and bibliography) to ISO 639-1, which BCP 47 prefers.
const LANGUAGES: &str = "aaraa abkab afraf akaak albsq amham araar argan armhy asmas avaav aveae \
    aymay azeaz bakba bambm baqeu belbe benbn bihbh bisbi bodbo bosbs brebr bulbg burmy catca \
    cescs chach chece chizh chucu chvcv corkw cosco crecr cymcy czecs danda deude divdv dutnl \
    dzodz ellel engen epoeo estet euseu eweee faofo fasfa fijfj finfi frafr frefr fryfy fulff \
    geoka gerde glagd glega glggl glvgv greel grngn gujgu hatht hauha hebhe herhz hinhi hmoho \
    hrvhr hunhu hyehy iboig iceis idoio iiiii ikuiu ileie inaia indid ipkik islis itait javjv \
    jpnja kalkl kankn kasks katka kaukr kazkk khmkm kikki kinrw kirky komkv konkg korko kuakj \
    kurku laolo latla lavlv limli linln litlt ltzlb lublu luglg macmk mahmh malml maomi marmr \
    mayms mkdmk mlgmg mltmt monmn mrimi msams myamy navnv nblnr ndend ndong nepne nldnl nnonn \
    nobnb norno nyany ocioc ojioj orior ormom ossos panpa perfa plipi polpl porpt pusps quequ rohrm \
    ronro rumro runrn rusru sagsg sansa sinsi slksk slosk slvsl smese smosm snasn sndsd somso \
    sotst spaes sqisq srdsc srpsr sswss sunsu swasw swesv tahty tamta tattt telte tgktg tgltl \
    thath tibbo tirti tonto tsntn tsots tuktk turtr twitw uigug ukruk urdur uzbuz venve vievi \
    volvo welcy wlnwa wolwo xhoxh yidyi yoryo zhaza zhozh zulzu";

/// Longest language tag that is taken, in bytes.
const TAG_BYTES_MAX: usize = 35;

/// The BCP 47 tag of a language, packed as `mdhd` does (ISO/IEC 14496-12 section 8.4.2); none
/// for `und` and for QuickTime's numbers.
pub(crate) fn language(code: u16) -> Option<String> {
    let letters = [code >> 10 & 31, code >> 5 & 31, code & 31];
    let code: Option<String> = letters
        .iter()
        .map(|letter| match u8::try_from(*letter) {
            Ok(letter @ 1..=26) => Some(char::from(0x60 + letter)),
            _ => None,
        })
        .collect();
    code.and_then(|code| tag(&code))
}

/// A language tag in its usual form: the shortest code for the language, other parts as given.
/// None where it is no tag, or says that the language is not known.
pub(crate) fn tag(given: &str) -> Option<String> {
    let mut parts = given.split(['-', '_']);
    let language = parts.next()?.to_ascii_lowercase();
    let word = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(alphanumeric);
    let plain =
        (2..=3).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_lowercase());
    if !plain || given.len() > TAG_BYTES_MAX || matches!(language.as_str(), "und" | "mis" | "zxx") {
        return None;
    }
    let short = LANGUAGES.split_ascii_whitespace().find(|row| row[..3] == language);
    let mut tag = short.map_or(language.clone(), |row| row[3..].to_owned());
    for part in parts {
        if !word(part) {
            return None;
        }
        tag.push('-');
        tag.push_str(part);
    }
    Some(tag)
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// Text from a file: up to the first zero byte, without control characters; none if empty.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or(&[]);
    let text = std::str::from_utf8(text).ok()?.trim();
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}

/// A handler's name, where a person and not a program gave it.
pub(crate) fn handler_label(name: &[u8]) -> Option<String> {
    let programs = ["andler", "GPAC", "ISO Media", "Core Media", "Apple", "Bento4", "L-SMASH", "@"];
    text(name).filter(|name| !programs.iter().any(|program| name.contains(program)))
}

/// Language and label of a side file from its name: `subs.en.vtt`, `film-de.vtt`, `fr.vtt`,
/// `film.en.SDH.vtt` (label `SDH`).
pub(crate) fn of_side_file(name: &str) -> (Option<String>, Option<String>) {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let (before, last) = stem.rsplit_once('.').unwrap_or(("", stem));
    let middle = before.rsplit_once('.').map_or(before, |(_, middle)| middle);
    if let Some(language) = known(last).or_else(|| known(last.rsplit_once(['-', '_', ' '])?.1)) {
        return (Some(language), None);
    }
    known(middle).map_or((None, None), |language| (Some(language), text(last.as_bytes())))
}

/// A tag of a language in the table, alone or with a script or region: names of files hold many
/// words that could pass for tags.
fn known(part: &str) -> Option<String> {
    let tag = tag(part)?;
    let mut parts = tag.split('-');
    let language = parts.next()?;
    let listed = LANGUAGES.split_ascii_whitespace().any(|row| row[3..] == *language);
    let region = |part: &str| match part.len() {
        2 => part.bytes().all(|b| b.is_ascii_uppercase()),
        3 => part.bytes().all(|b| b.is_ascii_digit()),
        4 => part.as_bytes()[0].is_ascii_uppercase(),
        _ => false,
    };
    (listed && parts.all(region)).then_some(tag)
}

/// Gives each track an id of its own.
#[derive(Default)]
pub(crate) struct Ids {
    taken: BTreeSet<String>,
}

impl Ids {
    /// `wanted`, or `wanted-2` and so on where it is taken. Letters that an id cannot have
    /// become hyphens.
    pub(crate) fn give(&mut self, wanted: &str, file: &str) -> Result<TrackId, Error> {
        let mut slug: String = wanted
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        // Room for a hyphen and a number within the 32 characters of an id.
        slug.truncate(26);
        let id = (1..)
            .map(|n| if n == 1 { slug.clone() } else { format!("{slug}-{n}") })
            .find(|id| !self.taken.contains(id))
            .unwrap_or_default();
        self.taken.insert(id.clone());
        id.parse().map_err(|error| Error::Corrupt {
            file: file.to_owned(),
            what: format!("no id for a track: {error}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_files_name_their_language() {
        let of = |name| of_side_file(name);
        let en = Some("en".to_owned());
        assert_eq!(of("subs.en.vtt"), (en.clone(), None));
        assert_eq!(of("film-en.vtt"), (en.clone(), None));
        assert_eq!(of("film.eng.SDH.vtt"), (en, Some("SDH".to_owned())));
        assert_eq!(of("film.pt-BR.vtt").0.as_deref(), Some("pt-BR"));
        assert_eq!(of("de.vtt").0.as_deref(), Some("de"));
        assert_eq!(of("subtitles.vtt"), (None, None));
        assert_eq!(of("my-film.vtt"), (None, None));
        assert_eq!(of("it.was.night.vtt"), (None, None));
    }

    #[test]
    fn packed_languages_become_short_tags() {
        let pack = |s: &str| s.bytes().fold(0u16, |n, b| n << 5 | u16::from(b - 0x60));
        assert_eq!(language(pack("eng")).as_deref(), Some("en"));
        assert_eq!(language(pack("ger")).as_deref(), Some("de"));
        assert_eq!(language(pack("haw")).as_deref(), Some("haw"));
        assert_eq!(language(pack("und")), None);
        assert_eq!(language(0), None);
        assert_eq!(language(0x7fff), None);
    }

    #[test]
    fn ids_stay_unique_and_short() {
        let mut ids = Ids::default();
        let mut give = |wanted: &str| ids.give(wanted, "f").unwrap().to_string();
        assert_eq!(give("v720"), "v720");
        assert_eq!(give("v720"), "v720-2");
        assert_eq!(give("a-pt-BR"), "a-pt-br");
        assert_eq!(give(&"x".repeat(99)).len(), 26);
    }
}
