//! The object store: a folder, memory, or S3
