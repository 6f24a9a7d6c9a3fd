//! ISO base media files: reading any, writing CMAF.
