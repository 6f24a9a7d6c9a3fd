//! Which parts of the write path are on. All are, unless someone measures what each brings.

/// The parts of the write path that can be turned off one by one. What is sent is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levers {
    /// Over TLS: the records of one turn leave together.
    pub cork: bool,
    /// Over TLS 1.3: records are sealed from where their bytes lie, right into what is sent.
    pub seal: bool,
    /// HTTP/2: large pieces of bodies leave as runs of DATA frames, not frame by frame.
    pub frames: bool,
    /// Plain HTTP/1.1: large pieces of the memory tier leave by `sendfile(2)`.
    pub sendfile: bool,
    /// HTTP/1.1, and HTTP/2 over TLS: a small answer at hand leaves without hyper.
    pub direct: bool,
    /// HTTP/3: what leaves for one peer in one turn leaves by few large sends.
    pub merge: bool,
}

impl Default for Levers {
    fn default() -> Self {
        Self { cork: true, seal: true, frames: true, sendfile: true, direct: true, merge: true }
    }
}

impl Levers {
    /// What [`Levers::off`] knows.
    pub const NAMES: &str = "cork, seal, frames, sendfile, direct or merge";

    /// Without the lever of this name; `None` for a name that is none.
    #[must_use]
    pub fn off(mut self, name: &str) -> Option<Self> {
        let lever = match name {
            "cork" => &mut self.cork,
            "seal" => &mut self.seal,
            "frames" => &mut self.frames,
            "sendfile" => &mut self.sendfile,
            "direct" => &mut self.direct,
            "merge" => &mut self.merge,
            _ => return None,
        };
        *lever = false;
        Some(self)
    }
}
