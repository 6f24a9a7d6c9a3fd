//! Where source bytes come from: random access, nothing else.

use std::fs::File;
use std::io;
use std::path::Path;

/// Random access to the bytes of one source file. The file must not change while a package
/// is open; a read past the end is an error.
pub trait ReadAt: Send + Sync {
    /// Size of the whole file.
    fn bytes(&self) -> u64;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// The system's error, or `UnexpectedEof` where the file ends before `buf` is full.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// One input of a package.
pub struct Source {
    /// The file's name as people know it: stands in messages, and gives a WebVTT file its
    /// language (`subs.en.vtt`, `film-de.vtt`).
    pub name: String,
    /// Its bytes.
    pub data: Box<dyn ReadAt>,
}

impl Source {
    /// Opens a file; its name is the path's last part.
    ///
    /// # Errors
    /// The system's error; a directory is refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, data: Box::new(FileSource::open(path)?) })
    }

    /// A source whose bytes are in memory.
    #[must_use]
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), data: Box::new(bytes) }
    }
}

/// A file on disk.
pub struct FileSource {
    file: File,
    bytes: u64,
}

impl FileSource {
    /// Opens a file for reading; its size is taken now.
    ///
    /// # Errors
    /// The system's error; a directory is refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let facts = file.metadata()?;
        if facts.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
        }
        Ok(Self { file, bytes: facts.len() })
    }
}

impl ReadAt for FileSource {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buf, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.get(start..));
        match rest.and_then(|rest| rest.get(..buf.len())) {
            Some(found) => buf.copy_from_slice(found),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }
}
