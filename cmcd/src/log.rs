//! The compact form of what was read, for a log line.

use crate::next::{NextObject, Span};
use crate::tokens::Token;
use crate::{Cmcd, LOG_BYTES_MAX, Numbers};
use std::fmt::{self, Write as _};

/// Of a reference in `nor` so many bytes at its end are told: a file's name, and some of its path.
const REFERENCE_BYTES_MAX: usize = 64;

/// The compact form: what was understood, in CMCD's own notation and in the order of its keys,
/// but that `nor` and `nrr` come last. References in `nor` are told without their query, which
/// may hold a secret, and shortened (`...` in front). At most [`LOG_BYTES_MAX`].
impl fmt::Display for Cmcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Line(String::new());
        line.numbers("ab", &self.ab).flag("bg", self.bg);
        line.numbers("bl", &self.bl).numbers("br", &self.br).flag("bs", self.bs);
        line.numbers("bsa", &self.bsa).numbers("bsd", &self.bsd).numbers("bsda", &self.bsda);
        line.text("cdn", self.cdn.as_deref()).text("cid", self.cid.as_deref());
        line.bare("d", self.d).bare("dfa", self.dfa).bare("dl", self.dl);
        let codes: Vec<String> = self.ec.iter().map(|code| quoted(code)).collect();
        line.bare("ec", (!codes.is_empty()).then(|| format!("({})", codes.join(" "))));
        line.numbers("lab", &self.lab).numbers("lb", &self.lb);
        line.bare("ltc", self.ltc).bare("msd", self.msd).numbers("mtp", &self.mtp);
        line.flag("nr", self.nr);
        line.bare("ot", self.ot.map(Token::name)).numbers("pb", &self.pb);
        line.bare("pr", self.pr).bare("pt", self.pt).bare("rtp", self.rtp);
        line.bare("sf", self.sf.map(Token::name)).text("sid", self.sid.as_deref());
        line.bare("sn", self.sn).bare("st", self.st.map(Token::name));
        line.bare("sta", self.sta.map(Token::name)).flag("su", self.su);
        line.numbers("tab", &self.tab).numbers("tb", &self.tb);
        line.numbers("tbl", &self.tbl).numbers("tpb", &self.tpb);
        line.bare("v", (self.v != 1).then_some(self.v));
        line.next(&self.nor).bare("nrr", self.nrr.map(|range| format!("\"{range}\"")));
        f.write_str(&line.0)
    }
}

/// The log's form as it grows; a part that would not fit is left out.
struct Line(String);

impl Line {
    fn part(&mut self, part: &str) -> &mut Self {
        let comma = usize::from(!self.0.is_empty());
        if self.0.len() + comma + part.len() <= LOG_BYTES_MAX {
            self.0.push_str(&","[..comma]);
            self.0.push_str(part);
        }
        self
    }

    fn bare(&mut self, key: &str, value: Option<impl fmt::Display>) -> &mut Self {
        match value {
            Some(value) => self.part(&format!("{key}={value}")),
            None => self,
        }
    }

    fn flag(&mut self, key: &str, is_set: bool) -> &mut Self {
        if is_set { self.part(key) } else { self }
    }

    fn text(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        self.bare(key, value.map(quoted))
    }

    fn next(&mut self, objects: &[NextObject]) -> &mut Self {
        let told: Vec<String> = objects.iter().map(next).collect();
        match told.as_slice() {
            [] => self,
            [one] if objects[0].range.is_none() => self.part(&format!("nor={one}")),
            several => self.part(&format!("nor=({})", several.join(" "))),
        }
    }

    fn numbers(&mut self, key: &str, numbers: &Numbers) -> &mut Self {
        let text = match numbers.0.as_slice() {
            [] => return self,
            [(number, None)] => number.to_string(),
            several => {
                let mut text = String::new();
                for (number, kind) in several {
                    let start = if text.is_empty() { '(' } else { ' ' };
                    // Writing to a string can't fail.
                    let _ = write!(text, "{start}{number}");
                    if let Some(kind) = kind {
                        let _ = write!(text, ";{}", kind.name());
                    }
                }
                text + ")"
            }
        };
        self.part(&format!("{key}={text}"))
    }
}

/// One of `nor`. What no URL holds as it is is escaped, as players escape it.
fn next(object: &NextObject) -> String {
    let path = object.reference.split(['?', '#']).next().unwrap_or_default();
    let mut text = String::new();
    for byte in path.bytes() {
        // Writing to a string can't fail.
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => write!(text, "{}", char::from(byte)),
            byte if b"-._~/:@!$&'()*+,;=".contains(&byte) => write!(text, "{}", char::from(byte)),
            byte => write!(text, "%{byte:02X}"),
        };
    }
    if text.len() > REFERENCE_BYTES_MAX {
        text.replace_range(..text.len() - REFERENCE_BYTES_MAX, "...");
    }
    match object.range {
        Some(range) => format!("\"{text}\";r=\"{range}\""),
        None => format!("\"{text}\""),
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From { first, last: None } => write!(f, "{first}-"),
            Self::From { first, last: Some(last) } => write!(f, "{first}-{last}"),
            Self::Last(length) => write!(f, "-{length}"),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
