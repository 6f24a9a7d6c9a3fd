//! From a title index to HLS and DASH, from MP4 to CMAF, and back.
//!
//! Pure: no sockets, no clock; media is read through [`package::ReadAt`].

pub mod dash;
pub mod hls;
pub mod mp4;
pub mod package;
pub mod steering;
pub mod vtt;
