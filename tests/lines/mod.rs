//! HTTP/1.1 messages, as origins and clients of a thread a connection read them.

use std::io::BufRead;

/// A message's first line and fields, in lower case; none at the end.
pub fn head(stream: &mut impl BufRead) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => return Some(lines),
            line => lines.push(line.to_lowercase()),
        }
    }
}

/// What a field says.
pub fn field<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}
