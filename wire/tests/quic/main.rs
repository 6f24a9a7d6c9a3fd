//! HTTP/3 as clients see it, over loopback, with real quinn clients.

#![allow(clippy::unwrap_used)]

mod bodies;
mod connections;
mod heads;
mod huffman;
mod leaving;
mod line;
mod reading;
mod requests;
mod rules;
mod thin;
mod world;
