//! Ingest, packaging and the origin server
