//! Memory for chunks.
