//! What a kind of store must do. The contracts stand at the methods of [`crate::Store`], which
//! checks keys and ranges before it calls these.

use crate::Result;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use service::Shutdown;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Hears how many more bytes were stored.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// An object's size and validator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Size of the whole object.
    pub bytes: u64,
    /// The store's own validator: changes when the object is replaced. Opaque.
    pub etag: String,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key, whole.
    pub key: String,
    /// Its size.
    pub bytes: u64,
}

/// An object that is being read.
pub struct Reading {
    /// Facts of the whole object.
    pub head: Head,
    /// The bytes asked for, in pieces.
    pub stream: BoxStream<'static, Result<Bytes>>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("head", &self.head).finish_non_exhaustive()
    }
}

#[async_trait]
pub(crate) trait Backend: fmt::Debug + Send + Sync {
    /// Nothing to do for a store that needs no place of its own.
    async fn create(&self) -> Result<()> {
        Ok(())
    }

    async fn head(&self, key: &str) -> Result<Head>;

    /// `range` is not empty; the stream gives exactly its bytes or ends with an error.
    async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Reading>;

    async fn put_file(
        &self,
        key: &str,
        file: &Path,
        progress: Progress,
        stop: &Shutdown,
    ) -> Result<()>;

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<()>;

    /// In any order.
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>>;
}
