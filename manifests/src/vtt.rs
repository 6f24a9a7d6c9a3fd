//! WebVTT (W3C WebVTT 1): checked and written anew, so that what players get is one plain form:
//! UTF-8 without a mark, `\n` line ends, full timestamps, cues in order of time. Comments are
//! left out, styles and regions kept.

use crate::package::{Error, ReadAt};
use std::fmt::Write;

/// A WebVTT file larger than this is refused, in bytes (a feature film's takes 100 KB).
pub const VTT_BYTES_MAX: u64 = 16 << 20;

/// A WebVTT file with more cues than this is refused.
pub const CUES_MAX: usize = 200_000;

/// A checked file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// `STYLE` and `REGION` blocks, without the blank lines around them.
    blocks: Vec<String>,
    /// In order of start.
    cues: Vec<Cue>,
}

/// One cue.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cue {
    id: Option<String>,
    start_ms: u64,
    end_ms: u64,
    settings: String,
    text: String,
}

impl Document {
    /// When the last cue ends, in milliseconds.
    #[must_use]
    pub fn end_ms(&self) -> u64 {
        self.cues.iter().map(|cue| cue.end_ms).max().unwrap_or(0)
    }

    /// The file in its plain form.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::from("WEBVTT\n");
        for block in &self.blocks {
            out += "\n";
            out += block;
        }
        for cue in &self.cues {
            out += "\n";
            if let Some(id) = &cue.id {
                out += id;
                out += "\n";
            }
            let (start, end) = (timestamp(cue.start_ms), timestamp(cue.end_ms));
            let gap = if cue.settings.is_empty() { "" } else { " " };
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{start} --> {end}{gap}{}", cue.settings);
            out += &cue.text;
        }
        out
    }
}

fn timestamp(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Reads a file.
///
/// # Errors
/// `Read`, `Empty`, `TooLarge`, or `Vtt` with the line.
pub fn read(name: &str, data: &dyn ReadAt) -> Result<Document, Error> {
    let file = || name.to_owned();
    let value = data.bytes();
    if value == 0 {
        return Err(Error::Empty { file: file(), what: "the file has no bytes".to_owned() });
    }
    if value > VTT_BYTES_MAX {
        let what = "WebVTT in bytes".to_owned();
        return Err(Error::TooLarge { file: file(), what, value, limit: VTT_BYTES_MAX });
    }
    let mut bytes = vec![0; usize::try_from(value).unwrap_or(0)];
    data.read_exact_at(0, &mut bytes).map_err(|source| Error::Read { file: file(), source })?;
    let document =
        parse(&bytes).map_err(|Wrong { line, what }| Error::Vtt { file: file(), line, what })?;
    if document.cues.is_empty() {
        return Err(Error::Empty { file: file(), what: "WebVTT without cues".to_owned() });
    }
    Ok(document)
}

/// A line that is wrong.
struct Wrong {
    line: usize,
    what: String,
}

fn wrong<T>(line: usize, what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { line, what: what.into() })
}

/// A run of lines between blank ones, and the number of its first line.
type Block<'a> = (usize, Vec<&'a str>);

fn parse(bytes: &[u8]) -> Result<Document, Wrong> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            return wrong(line, "not UTF-8");
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let text = text.replace(['\r', '\0'], "\n");
    let mut blocks = blocks(&text).into_iter();
    let header = blocks.next().filter(|(line, _)| *line == 1);
    match header.as_ref().and_then(|(_, lines)| lines[0].strip_prefix("WEBVTT")) {
        Some(rest) if rest.is_empty() || rest.starts_with([' ', '\t']) => {}
        _ => return wrong(1, "the first line is not WEBVTT"),
    }
    for (n, line) in header.iter().flat_map(|(_, lines)| lines.iter().enumerate()) {
        if line.starts_with("X-TIMESTAMP-MAP") {
            return wrong(
                n + 1,
                "X-TIMESTAMP-MAP: this is a segment of a stream, not a whole file",
            );
        }
    }
    let mut document = Document { blocks: Vec::new(), cues: Vec::new() };
    for (line, lines) in blocks {
        block(line, &lines, &mut document)?;
    }
    document.cues.sort_by_key(|cue| cue.start_ms);
    Ok(document)
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut open = false;
    for (n, line) in text.split('\n').enumerate() {
        if line.is_empty() {
            open = false;
            continue;
        }
        match blocks.last_mut().filter(|_| open) {
            Some((_, lines)) => lines.push(line),
            None => blocks.push((n + 1, vec![line])),
        }
        open = true;
    }
    blocks
}

fn block(line: usize, lines: &[&str], document: &mut Document) -> Result<(), Wrong> {
    let word = lines[0].split([' ', '\t']).next().unwrap_or("");
    if word == "NOTE" {
        return Ok(());
    }
    if matches!(lines[0].trim_end(), "STYLE" | "REGION") && document.cues.is_empty() {
        document.blocks.push(joined(lines));
        return Ok(());
    }
    let (id, timing) = if lines[0].contains("-->") { (None, 0) } else { (Some(lines[0]), 1) };
    let at = line + timing;
    let Some(found) = lines.get(timing).filter(|line| line.contains("-->")) else {
        return wrong(at, "expected a cue's times: 00:00:01.000 --> 00:00:02.000");
    };
    let (start, end, settings) = times(at, found)?;
    if let Some(n) = lines[timing + 1..].iter().position(|line| line.contains("-->")) {
        return wrong(at + 1 + n, "a cue's text holds -->: a blank line is missing before it");
    }
    if end < start {
        return wrong(at, "the cue ends before it starts");
    }
    if document.cues.len() == CUES_MAX {
        return wrong(at, format!("more than {CUES_MAX} cues"));
    }
    let text = joined(&lines[timing + 1..]);
    if end > start && !text.is_empty() {
        let id = id.map(str::to_owned);
        document.cues.push(Cue { id, start_ms: start, end_ms: end, settings, text });
    }
    Ok(())
}

fn joined(lines: &[&str]) -> String {
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

fn times(at: usize, line: &str) -> Result<(u64, u64, String), Wrong> {
    let (start, rest) = line.split_once("-->").unwrap_or((line, ""));
    let mut words = rest.split_ascii_whitespace();
    let end = words.next().unwrap_or("");
    let settings = words.collect::<Vec<_>>().join(" ");
    match (milliseconds(start.trim()), milliseconds(end)) {
        (Some(start), Some(end)) => Ok((start, end, settings)),
        (None, _) => wrong(at, time_expected(start.trim())),
        (_, None) => wrong(at, time_expected(end)),
    }
}

fn time_expected(given: &str) -> String {
    let given: String = given.chars().take(40).collect();
    let hint =
        if given.contains(',') { " (SubRip writes a comma: convert it to WebVTT)" } else { "" };
    format!("{given:?} is not a time such as 00:01:02.500{hint}")
}

/// `[hours:]mm:ss.mmm`
fn milliseconds(text: &str) -> Option<u64> {
    let (clock, fraction) = text.split_once('.')?;
    let number = |part: &str, digits: std::ops::RangeInclusive<usize>| {
        let plain = digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if plain { part.parse::<u64>().ok() } else { None }
    };
    let mut parts = clock.rsplit(':');
    let seconds = number(parts.next()?, 2..=2).filter(|s| *s < 60)?;
    let minutes = number(parts.next()?, 2..=2).filter(|m| *m < 60)?;
    let hours = parts.next().map_or(Some(0), |hours| number(hours, 2..=5))?;
    if parts.next().is_some() {
        return None;
    }
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + number(fraction, 3..=3)?)
}

#[cfg(test)]
mod tests;
