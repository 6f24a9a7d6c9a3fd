//! HTTP caching as plain functions: no sockets, no clock.
