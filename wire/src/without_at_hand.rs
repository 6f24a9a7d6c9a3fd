//! What stands for `at_hand` with the published h2, which asks nobody.

use crate::Service;
use crate::responding::Requests;
use crate::service::Answering;
use bytes::Bytes;
use http::{Request, Response};
use std::sync::Arc;

/// Begins a connection.
pub fn begin<S: Service, T>(_: Arc<Requests<S>>, start: impl FnOnce() -> T) -> T {
    start()
}

/// Nothing was said before.
pub fn begun<S: Service, T>(_: &mut Request<T>) -> Option<Answering<S::Body>> {
    None
}

/// No block.
pub fn block<B>(_: &Response<B>, _: u64) -> Option<Bytes> {
    None
}
