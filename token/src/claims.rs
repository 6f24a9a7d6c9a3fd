//! The claims of a play token, to and from CBOR. The numbers are those of the IANA CWT registry
//! (RFC 8392; 310 to 313 from CTA-5007).

use crate::Refusal;
use coset::CborSerializable;
use coset::cbor::value::Value;
use model::TitleId;

const ISS: i128 = 1;
const EXP: i128 = 4;
const NBF: i128 = 5;
const IAT: i128 = 6;
const CTI: i128 = 7;
const CATV: i128 = 310;
const CATU: i128 = 312;
const CATM: i128 = 313;

/// `catu`: the URI's path.
const PART_PATH: i128 = 3;
/// `catu`: the part begins with this text.
const MATCH_PREFIX: i128 = 1;

const ISSUER: &str = "nearcast";
const CAT_VERSION: u64 = 1;
const METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

/// What a token is minted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The play, as in its events.
    pub play: [u8; 16],
    /// The title: every version of it.
    pub title: TitleId,
    /// First second at which it is valid, since 1970 UTC; also the time of issue.
    pub not_before: u64,
    /// First second at which it is not valid any more, since 1970 UTC.
    pub expires: u64,
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The play.
    pub play: [u8; 16],
    /// First second at which it is valid, since 1970 UTC.
    pub not_before: u64,
    /// First second at which it is not valid any more, since 1970 UTC.
    pub expires: u64,
    /// Paths that begin with this are allowed: `/t/{title}/`.
    pub path_prefix: String,
    /// Methods that are allowed.
    pub methods: Vec<String>,
}

impl Claims {
    /// The title that the path prefix stands for; none if it stands for something else.
    #[must_use]
    pub fn title(&self) -> Option<TitleId> {
        self.path_prefix.strip_prefix("/t/")?.strip_suffix('/')?.parse().ok()
    }
}

fn int(number: i128) -> Value {
    Value::Integer(i64::try_from(number).expect("claim numbers are small").into())
}

/// The payload of a token.
pub(crate) fn encode(grant: &Grant) -> Vec<u8> {
    let prefix = Value::Text(model::route::title_prefix(&grant.title));
    let path = Value::Map(vec![(int(MATCH_PREFIX), prefix)]);
    let methods = METHODS.iter().map(|method| Value::Text((*method).to_owned())).collect();
    Value::Map(vec![
        (int(ISS), Value::Text(ISSUER.to_owned())),
        (int(EXP), Value::Integer(grant.expires.into())),
        (int(NBF), Value::Integer(grant.not_before.into())),
        (int(IAT), Value::Integer(grant.not_before.into())),
        (int(CTI), Value::Bytes(grant.play.to_vec())),
        (int(CATV), Value::Integer(CAT_VERSION.into())),
        (int(CATU), Value::Map(vec![(int(PART_PATH), path)])),
        (int(CATM), Value::Array(methods)),
    ])
    .to_vec()
    .expect("a value of maps, texts and integers always encodes")
}

/// Claims found so far.
#[derive(Default)]
struct Found {
    issuer: Option<()>,
    expires: Option<u64>,
    not_before: Option<u64>,
    issued: Option<u64>,
    play: Option<[u8; 16]>,
    version: Option<()>,
    path_prefix: Option<String>,
    methods: Option<Vec<String>>,
}

/// Reads a payload whose signature has been checked.
pub(crate) fn decode(payload: &[u8]) -> Result<Claims, Refusal> {
    let value = Value::from_slice(payload).map_err(|_| Refusal::Malformed("claims"))?;
    if value.clone().to_vec().ok().as_deref() != Some(payload) {
        return Err(Refusal::Malformed("claims in another than the shortest encoding"));
    }
    let mut found = Found::default();
    for (name, value) in into_map(value)? {
        let Value::Integer(number) = name else { return Err(Refusal::UnknownClaim) };
        match i128::from(number) {
            ISS => put(&mut found.issuer, issuer(value)?)?,
            EXP => put(&mut found.expires, seconds(value)?)?,
            NBF => put(&mut found.not_before, seconds(value)?)?,
            IAT => put(&mut found.issued, seconds(value)?)?,
            CTI => put(&mut found.play, play(value)?)?,
            CATV => put(&mut found.version, version(value)?)?,
            CATU => put(&mut found.path_prefix, path_prefix(value)?)?,
            CATM => put(&mut found.methods, methods(value)?)?,
            _ => return Err(Refusal::UnknownClaim),
        }
    }
    found.complete().ok_or(Refusal::Malformed("a claim is missing"))
}

impl Found {
    fn complete(self) -> Option<Claims> {
        let () = self.issuer.and(self.version)?;
        self.issued?;
        Some(Claims {
            play: self.play?,
            not_before: self.not_before?,
            expires: self.expires?,
            path_prefix: self.path_prefix?,
            methods: self.methods?,
        })
    }
}

fn put<T>(slot: &mut Option<T>, value: T) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::Malformed("a claim stands twice")),
    }
}

fn into_map(value: Value) -> Result<Vec<(Value, Value)>, Refusal> {
    value.into_map().map_err(|_| Refusal::Malformed("expected a map"))
}

fn issuer(value: Value) -> Result<(), Refusal> {
    if value.as_text() == Some(ISSUER) { Ok(()) } else { Err(Refusal::Malformed("issuer")) }
}

/// A version of CAT that is not known here may mean other things by the same claims.
fn version(value: Value) -> Result<(), Refusal> {
    let known = value == Value::Integer(CAT_VERSION.into());
    if known { Ok(()) } else { Err(Refusal::UnknownClaim) }
}

fn seconds(value: Value) -> Result<u64, Refusal> {
    let number = value.into_integer().map_err(|_| Refusal::Malformed("time"))?;
    u64::try_from(number).map_err(|_| Refusal::Malformed("time"))
}

fn play(value: Value) -> Result<[u8; 16], Refusal> {
    let bytes = value.into_bytes().map_err(|_| Refusal::Malformed("token id"))?;
    bytes.try_into().map_err(|_| Refusal::Malformed("token id"))
}

/// Only a path prefix: any other part or kind of match is a restriction that is not known here.
fn path_prefix(value: Value) -> Result<String, Refusal> {
    let path = only(value, PART_PATH)?;
    only(path, MATCH_PREFIX)?.into_text().map_err(|_| Refusal::Malformed("path prefix"))
}

fn only(value: Value, key: i128) -> Result<Value, Refusal> {
    let mut entries = into_map(value)?;
    match (entries.pop(), entries.is_empty()) {
        (Some((name, value)), true) if name == int(key) => Ok(value),
        _ => Err(Refusal::UnknownClaim),
    }
}

fn methods(value: Value) -> Result<Vec<String>, Refusal> {
    let names = value.into_array().map_err(|_| Refusal::Malformed("methods"))?;
    let text = |name: Value| name.into_text().map_err(|_| Refusal::Malformed("methods"));
    names.into_iter().map(text).collect()
}
