//! What commands print. Whoever reads it may leave early, as `head` does.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Prints text on standard output. That its reader has left is no error: it has what it wanted.
///
/// # Errors
/// What the system says of any other failure.
pub fn print(text: impl Display) -> io::Result<()> {
    print_to(&mut io::stdout().lock(), text)
}

fn print_to(out: &mut impl Write, text: impl Display) -> io::Result<()> {
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_left_is_no_error_and_a_full_disk_is() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert!(print_to(&mut writer, "text").is_ok());
        let mut full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(print_to(&mut full, "text").unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
