//! MPEG-DASH: the MPD of a title.
