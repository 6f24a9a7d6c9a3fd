//! A cursor over bytes that may end at any point, and boxes in it.

use super::Fault;

/// Four characters as people read them; others as dots.
pub(crate) fn fourcc(kind: [u8; 4]) -> String {
    kind.iter().map(|b| if b.is_ascii_graphic() { char::from(*b) } else { '.' }).collect()
}

/// Reads big-endian fields; running out of bytes is a fault that names the box.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    kind: [u8; 4],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(rest: &'a [u8], kind: [u8; 4]) -> Self {
        Self { rest, kind }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Fault> {
        let Some((head, rest)) = self.rest.split_at_checked(bytes) else {
            return Fault::corrupt(format!("box {} is too short", fourcc(self.kind)));
        };
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn skip(&mut self, bytes: usize) -> Result<(), Fault> {
        self.take(bytes).map(|_| ())
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Fault> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_be_bytes)
    }

    /// Version and flags of a full box.
    pub(crate) fn version_flags(&mut self) -> Result<(u8, u32), Fault> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0xff_ffff))
    }

    /// 32 bits wide in version 0 of a box, else 64.
    pub(crate) fn sized(&mut self, version: u8) -> Result<u64, Fault> {
        if version == 0 { self.u32().map(u64::from) } else { self.u64() }
    }

    /// A count of rows, each of `row` bytes: refused where the box cannot hold so many.
    pub(crate) fn rows(&mut self, row: usize) -> Result<usize, Fault> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / row.max(1) {
            return Fault::corrupt(format!(
                "box {} announces {count} rows and has room for {}",
                fourcc(self.kind),
                self.rest.len() / row.max(1)
            ));
        }
        Ok(count)
    }
}

/// A box in memory.
#[derive(Clone, Copy)]
pub(crate) struct Box<'a> {
    pub(crate) kind: [u8; 4],
    /// What follows the header.
    pub(crate) body: &'a [u8],
    /// Header and body.
    pub(crate) whole: &'a [u8],
}

impl<'a> Box<'a> {
    pub(crate) fn cursor(&self) -> Cursor<'a> {
        Cursor::new(self.body, self.kind)
    }

    pub(crate) fn boxes(&self) -> Boxes<'a> {
        boxes(self.body)
    }
}

/// The boxes that lie one after another in `bytes`. Fewer than 8 bytes at the end are padding
/// (QuickTime ends lists with a zero word).
pub(crate) fn boxes(bytes: &[u8]) -> Boxes<'_> {
    Boxes { rest: bytes }
}

pub(crate) struct Boxes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Boxes<'a> {
    type Item = Result<Box<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.len() < 8 {
            return None;
        }
        let found = split(self.rest);
        self.rest = match &found {
            Ok(found) => &self.rest[found.whole.len()..],
            Err(_) => &[],
        };
        Some(found)
    }
}

fn split(bytes: &[u8]) -> Result<Box<'_>, Fault> {
    let mut cursor = Cursor::new(bytes, *b"    ");
    let short = cursor.u32()?;
    let kind: [u8; 4] = cursor.array()?;
    let (header, size) = match short {
        0 => (8, bytes.len()),
        1 => (16, usize::try_from(cursor.u64()?).unwrap_or(usize::MAX)),
        size => (8, size as usize),
    };
    match bytes.get(..size) {
        Some(whole) if size >= header => Ok(Box { kind, body: &whole[header..], whole }),
        _ => Fault::corrupt(format!(
            "box {} says it has {size} bytes where {} are left",
            fourcc(kind),
            bytes.len()
        )),
    }
}

/// The one box of this kind among `bytes`, if there is one.
pub(crate) fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Result<Option<Box<'a>>, Fault> {
    for found in boxes(bytes) {
        let found = found?;
        if found.kind == *kind {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The one box of this kind among `bytes`.
pub(crate) fn need<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Result<Box<'a>, Fault> {
    match find(bytes, kind)? {
        Some(found) => Ok(found),
        None => Fault::corrupt(format!("no {} box", fourcc(*kind))),
    }
}
