//! Packaging: source files to track files with aligned segments.
