//! The keys that an edge reads of a request, typed.
//!
//! Keys of CTA-5004-B that only belong to event reports (`e`, `url`, `ttfb`...) and custom keys
//! (with a hyphen) are ignored, as are keys of versions to come.

use crate::next::{NextObject, Span, reference};
use crate::text::{Item, Pair, Value};
use crate::tokens::{ObjectType, PlayerState, StreamType, StreamingFormat, Token};
use crate::{NEXT_BYTES_MAX, NEXT_MAX};

/// A whole number has at most so many digits (RFC 9651 section 3.3.1).
const DIGITS_MAX: usize = 15;
/// Characters of `sid` and `cid`... by version 1; version 2 gives most strings 128.
const TEXT_CHARS_MAX: usize = 128;

/// Whole numbers, in version 2 each for an object type: `(5000;v 128;a)`. Version 1 has one,
/// for the object asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers(pub(crate) Vec<(u64, Option<ObjectType>)>);

impl Numbers {
    const NONE: Self = Self(Vec::new());

    /// The number for an object type, or else the one for all.
    #[must_use]
    pub fn of(&self, kind: ObjectType) -> Option<u64> {
        let find = |kind| self.0.iter().find(|(_, of)| *of == kind).map(|(number, _)| *number);
        find(Some(kind)).or_else(|| find(None))
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.0.iter().map(|(number, _)| *number).max()
    }
}

/// What a player told with a request. A key that was absent, or bad, is none, empty or false.
#[derive(Debug, Clone, PartialEq)]
pub struct Cmcd {
    /// `v`: the version; 1 when absent.
    pub v: u64,
    /// `ab`: aggregate encoded bitrate, kbit/s.
    pub ab: Numbers,
    /// `bg`: nobody sees the player.
    pub bg: bool,
    /// `bl`: buffer length, ms.
    pub bl: Numbers,
    /// `br`: encoded bitrate, kbit/s.
    pub br: Numbers,
    /// `bs`: the buffer ran dry since the last request.
    pub bs: bool,
    /// `bsa`: how often it ran dry in this session.
    pub bsa: Numbers,
    /// `bsd`: the latest rebuffering, ms.
    pub bsd: Numbers,
    /// `bsda`: all rebuffering of this session, ms.
    pub bsda: Numbers,
    /// `cdn`: which delivery network the player means to use.
    pub cdn: Option<Box<str>>,
    /// `cid`: the content.
    pub cid: Option<Box<str>>,
    /// `d`: the object's duration, ms.
    pub d: Option<u64>,
    /// `dfa`: frames dropped in this session.
    pub dfa: Option<u64>,
    /// `dl`: from the request to the moment when the first sample must be there, ms.
    pub dl: Option<u64>,
    /// `ec`: error codes of the application.
    pub ec: Vec<Box<str>>,
    /// `lab`: lowest aggregate bitrate, kbit/s.
    pub lab: Numbers,
    /// `lb`: lowest bitrate, kbit/s.
    pub lb: Numbers,
    /// `ltc`: latency behind live, ms.
    pub ltc: Option<u64>,
    /// `msd`: from the wish to play to the first picture, ms.
    pub msd: Option<u64>,
    /// `mtp`: measured throughput, kbit/s.
    pub mtp: Numbers,
    /// `nor`: what comes next, at most [`NEXT_MAX`].
    pub nor: Vec<NextObject>,
    /// `nr`: the object will not be rendered.
    pub nr: bool,
    /// `nrr`: which bytes come next, in version 1.
    pub nrr: Option<Span>,
    /// `ot`: the object's type.
    pub ot: Option<ObjectType>,
    /// `pb`: the bitrate that is shown now, kbit/s.
    pub pb: Numbers,
    /// `pr`: the speed of play; 0 stands, 1 is real time.
    pub pr: Option<f64>,
    /// `pt`: the playhead, ms.
    pub pt: Option<u64>,
    /// `rtp`: throughput beyond which the player has no use for more, kbit/s.
    pub rtp: Option<u64>,
    /// `sf`: the kind of manifest.
    pub sf: Option<StreamingFormat>,
    /// `sid`: the session.
    pub sid: Option<Box<str>>,
    /// `sn`: the report's number within the session.
    pub sn: Option<u64>,
    /// `st`: live or not.
    pub st: Option<StreamType>,
    /// `sta`: the player's state.
    pub sta: Option<PlayerState>,
    /// `su`: needed for a start, a seek or after a stall.
    pub su: bool,
    /// `tab`: top aggregate bitrate, kbit/s.
    pub tab: Numbers,
    /// `tb`: top bitrate, kbit/s.
    pub tb: Numbers,
    /// `tbl`: the buffer length aimed at, ms.
    pub tbl: Numbers,
    /// `tpb`: the top bitrate that can be played, kbit/s.
    pub tpb: Numbers,
}

/// What became of a pair.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Set,
    Ignored,
    Bad,
}

impl Cmcd {
    pub(crate) const NONE: Self = Self {
        v: 1,
        ab: Numbers::NONE,
        bg: false,
        bl: Numbers::NONE,
        br: Numbers::NONE,
        bs: false,
        bsa: Numbers::NONE,
        bsd: Numbers::NONE,
        bsda: Numbers::NONE,
        cdn: None,
        cid: None,
        d: None,
        dfa: None,
        dl: None,
        ec: Vec::new(),
        lab: Numbers::NONE,
        lb: Numbers::NONE,
        ltc: None,
        msd: None,
        mtp: Numbers::NONE,
        nor: Vec::new(),
        nr: false,
        nrr: None,
        ot: None,
        pb: Numbers::NONE,
        pr: None,
        pt: None,
        rtp: None,
        sf: None,
        sid: None,
        sn: None,
        st: None,
        sta: None,
        su: false,
        tab: Numbers::NONE,
        tb: Numbers::NONE,
        tbl: Numbers::NONE,
        tpb: Numbers::NONE,
    };

    /// Takes a pair; of a key given twice the last counts.
    pub(crate) fn set(&mut self, pair: &Pair<'_>) -> Outcome {
        let value = &pair.value;
        let set = match pair.key {
            "v" => put(&mut self.v, whole(value)),
            "ab" => put(&mut self.ab, numbers(value)),
            "bg" => put(&mut self.bg, flag(value)),
            "bl" => put(&mut self.bl, numbers(value)),
            "br" => put(&mut self.br, numbers(value)),
            "bs" => put(&mut self.bs, flag(value)),
            "bsa" => put(&mut self.bsa, numbers(value)),
            "bsd" => put(&mut self.bsd, numbers(value)),
            "bsda" => put(&mut self.bsda, numbers(value)),
            "cdn" => some(&mut self.cdn, text(value)),
            "cid" => some(&mut self.cid, text(value)),
            "d" => some(&mut self.d, whole(value)),
            "dfa" => some(&mut self.dfa, whole(value)),
            "dl" => some(&mut self.dl, whole(value)),
            "ec" => put(&mut self.ec, texts(value)),
            "lab" => put(&mut self.lab, numbers(value)),
            "lb" => put(&mut self.lb, numbers(value)),
            "ltc" => some(&mut self.ltc, whole(value)),
            "msd" => some(&mut self.msd, whole(value)),
            "mtp" => put(&mut self.mtp, numbers(value)),
            "nor" => put(&mut self.nor, next(value)),
            "nr" => put(&mut self.nr, flag(value)),
            "nrr" => some(&mut self.nrr, string(value).and_then(Span::parse)),
            "ot" => some(&mut self.ot, token(value)),
            "pb" => put(&mut self.pb, numbers(value)),
            "pr" => some(&mut self.pr, decimal(value)),
            "pt" => some(&mut self.pt, whole(value)),
            "rtp" => some(&mut self.rtp, whole(value)),
            "sf" => some(&mut self.sf, token(value)),
            "sid" => some(&mut self.sid, text(value)),
            "sn" => some(&mut self.sn, whole(value)),
            "st" => some(&mut self.st, token(value)),
            "sta" => some(&mut self.sta, token(value)),
            "su" => put(&mut self.su, flag(value)),
            "tab" => put(&mut self.tab, numbers(value)),
            "tb" => put(&mut self.tb, numbers(value)),
            "tbl" => put(&mut self.tbl, numbers(value)),
            "tpb" => put(&mut self.tpb, numbers(value)),
            _ => return Outcome::Ignored,
        };
        if set.is_some() { Outcome::Set } else { Outcome::Bad }
    }

    /// Once all keys are read: `nor` comes before `v`, which says how it is encoded.
    pub(crate) fn settle(&mut self) {
        let version = self.v;
        self.nor.retain_mut(|object| {
            let decoded = reference(&object.reference, version);
            decoded.map(|reference| object.reference = reference).is_some()
        });
    }
}

fn put<T>(slot: &mut T, value: Option<T>) -> Option<()> {
    *slot = value?;
    Some(())
}

fn some<T>(slot: &mut Option<T>, value: Option<T>) -> Option<()> {
    put(slot, value.map(Some))
}

fn whole(value: &Value<'_>) -> Option<u64> {
    let Value::Item(item) = value else { return None };
    item_whole(item)
}

fn item_whole(item: &Item<'_>) -> Option<u64> {
    let Item::Bare(digits) = item else { return None };
    let fits = digits.len() <= DIGITS_MAX && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| fits)
}

/// Twelve digits before the point, three after it, perhaps a sign (RFC 9651 section 3.3.2).
fn decimal(value: &Value<'_>) -> Option<f64> {
    let Value::Item(Item::Bare(number)) = value else { return None };
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (units, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let fits = |part: &str, most| {
        !part.is_empty() && part.len() <= most && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    number.parse().ok().filter(|_| fits(units, 12) && fits(fraction, 3))
}

fn flag(value: &Value<'_>) -> Option<bool> {
    match value {
        Value::True | Value::Item(Item::Bare("?1" | "true")) => Some(true),
        Value::Item(Item::Bare("?0" | "false")) => Some(false),
        _ => None,
    }
}

fn token<T: Token>(value: &Value<'_>) -> Option<T> {
    // Some players of version 1 put quotes around tokens.
    string(value).and_then(T::of)
}

fn string<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    match value {
        Value::Item(item) => Some(item_string(item)),
        _ => None,
    }
}

fn item_string<'v>(item: &'v Item<'_>) -> &'v str {
    match item {
        Item::Bare(text) => text,
        Item::Text(text) => text,
    }
}

/// A string as an identifier: visible, short.
fn text(value: &Value<'_>) -> Option<Box<str>> {
    identifier(string(value)?)
}

fn identifier(text: &str) -> Option<Box<str>> {
    let fits = text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.into())
}

fn texts(value: &Value<'_>) -> Option<Vec<Box<str>>> {
    match value {
        Value::List(items) => items.iter().map(|(item, _)| identifier(item_string(item))).collect(),
        value => text(value).map(|one| vec![one]),
    }
}

fn numbers(value: &Value<'_>) -> Option<Numbers> {
    let Value::List(items) = value else {
        return whole(value).map(|number| Numbers(vec![(number, None)]));
    };
    let number = |(item, parameter): &(Item<'_>, Option<crate::text::Parameter<'_>>)| {
        let kind = parameter.as_ref().and_then(|parameter| ObjectType::of(parameter.name));
        Some((item_whole(item)?, kind))
    };
    items.iter().map(number).collect::<Option<_>>().map(Numbers)
}

/// The hints as sent; [`Cmcd::settle`] decodes them.
fn next(value: &Value<'_>) -> Option<Vec<NextObject>> {
    let object = |item: &Item<'_>, range| {
        // Encoded a byte may take three.
        let sent = Some(item_string(item)).filter(|text| text.len() <= 3 * NEXT_BYTES_MAX)?;
        Some(NextObject { reference: sent.into(), range })
    };
    match value {
        Value::True => None,
        Value::Item(item) => Some(vec![object(item, None)?]),
        Value::List(items) => {
            let of = |(item, parameter): &(Item<'_>, Option<crate::text::Parameter<'_>>)| {
                let range = parameter.as_ref().filter(|parameter| parameter.name == "r");
                let range = range.and_then(|range| range.value.as_ref()).map(item_string);
                let span = match range {
                    None => None,
                    Some(range) => Some(Span::parse(range)?),
                };
                object(item, span)
            };
            items.iter().take(NEXT_MAX).map(of).collect()
        }
    }
}
