//! Listening sockets, with errors that name the address.

use crate::Error;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::ErrorKind;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

/// Listens on `addr`; `what` names the listener in errors (`edge listen`). A port that a
/// process which just ended had in use can be taken over at once.
///
/// # Errors
/// [`Error::InUse`] or [`Error::Listen`]. Must be called within a tokio runtime.
pub fn bind(addr: SocketAddr, what: &str) -> Result<TcpListener, Error> {
    tcp(addr).map_err(|source| failed(addr, what, source))
}

fn tcp(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The named error for a failed bind.
#[must_use]
pub fn failed(addr: SocketAddr, what: &str, source: std::io::Error) -> Error {
    let what = what.to_owned();
    if source.kind() == ErrorKind::AddrInUse {
        return Error::InUse { what, addr };
    }
    Error::Listen { what, addr, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = bind("127.0.0.1:0".parse().unwrap(), "origin listen").unwrap();
        let addr = first.local_addr().unwrap();
        let error = bind(addr, "edge listen").unwrap_err();
        assert!(matches!(error, Error::InUse { .. }));
        assert!(error.to_string().starts_with(&format!("edge listen: {addr} is already in use")));
    }
}
