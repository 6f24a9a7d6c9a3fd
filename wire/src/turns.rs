//! A connection polled turn by turn: what is left of the last turn goes first, then the
//! connection reads and writes, then what it wrote leaves. Where its stream is not corked, a
//! turn is a poll and nothing else.

use crate::corked::TlsStream;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How a connection ended.
pub type Ended = Result<(), Box<dyn Error + Send + Sync>>;

/// A connection and its stream.
pub struct Turns<'a, C> {
    connection: Pin<&'a mut C>,
    corked: Option<TlsStream>,
    ended: Option<Ended>,
}

impl<'a, C> Turns<'a, C> {
    /// Drives `connection`, which reads and writes `corked`, if that is one.
    pub fn new(connection: Pin<&'a mut C>, corked: Option<TlsStream>) -> Self {
        Self { connection, corked, ended: None }
    }

    /// The connection.
    pub fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C> Future for Turns<'_, C>
where
    C: Future<Output = Ended>,
{
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(corked) = &this.corked else {
            return this.connection.as_mut().poll(cx);
        };
        if this.ended.is_none() {
            corked.begin(cx)?;
            if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                this.ended = Some(ended);
            }
        }
        let has_more = ready!(corked.end(cx))?;
        if let Some(ended) = this.ended.take() {
            return Poll::Ready(ended);
        }
        if has_more {
            // After other connections' turns.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watched::Watched;
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::{LocalSet, spawn_local, yield_now};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    type Client = tokio_rustls::client::TlsStream<TcpStream>;

    /// A TLS connection: the client's end, and the server's.
    async fn pair(protocol: &[u8]) -> (Client, TlsStream) {
        pair_by(protocol, rustls::DEFAULT_VERSIONS).await
    }

    async fn pair_by(
        protocol: &[u8],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> (Client, TlsStream) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let provider = Arc::new(crate::tls::provider());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        server.alpn_protocols = vec![protocol.to_vec()];
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![protocol.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let accepting = async {
            let socket = listener.accept().await.unwrap().0;
            acceptor.accept(Watched::patient(socket)).await.unwrap()
        };
        let (client, server) = tokio::join!(connector.connect(name, tcp), accepting);
        let (socket, session) = server.into_inner();
        (client.unwrap(), TlsStream::new(socket, session, crate::Levers::default()))
    }

    /// Serves a body of so many bytes for any request; how often it was polled, until it ends.
    fn serve(stream: TlsStream, bytes: usize) -> Rc<Cell<(usize, bool)>> {
        let told = Rc::new(Cell::new((0, false)));
        let polls = Rc::clone(&told);
        spawn_local(async move {
            let service = service_fn(move |_| async move {
                let body = Full::new(Bytes::from(vec![7; bytes]));
                Ok::<_, Infallible>(http::Response::new(body))
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream.clone()), service);
            let connection = std::pin::pin!(connection);
            let mut turns = Turns::new(connection, Some(stream));
            let ended = poll_fn(|cx| {
                polls.set((polls.get().0 + 1, false));
                Pin::new(&mut turns).poll(cx)
            });
            // Peers that leave are an error to hyper now and then.
            let _ = ended.await;
            polls.set((polls.get().0, true));
        });
        told
    }

    /// Lets everything run until nothing does: a task that wakes itself never gets there.
    async fn settle(told: &Cell<(usize, bool)>) -> usize {
        for _ in 0..1000 {
            let before = told.get().0;
            for _ in 0..200 {
                yield_now().await;
            }
            if told.get().0 == before {
                return before;
            }
        }
        panic!("it spins: polled {} times", told.get().0);
    }

    fn on_one_thread(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    async fn ended(told: &Cell<(usize, bool)>) {
        while !told.get().1 {
            assert!(told.get().0 < 1000, "it spins");
            yield_now().await;
        }
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn an_idle_connection_sleeps_and_a_closed_one_ends() {
        on_one_thread(async {
            for leaves in [false, true] {
                let (mut client, server) = pair(b"http/1.1").await;
                let told = serve(server, 300_000);
                client.write_all(GET).await.unwrap();
                let mut body = vec![0; 300_000];
                client.read_exact(&mut body).await.unwrap();
                settle(&told).await;
                if leaves {
                    // Without a word of TLS.
                    drop(client.into_inner());
                } else {
                    client.shutdown().await.unwrap();
                }
                ended(&told).await;
            }
        });
    }

    /// RFC 8446 section 4.6.3: the peer's new keys, and ours that it asks for, in mid-body.
    #[test]
    fn keys_change_in_mid_body() {
        on_one_thread(async {
            const BYTES: usize = 3 << 20;
            let (mut client, server) = pair(b"http/1.1").await;
            let told = serve(server, BYTES);
            client.write_all(GET).await.unwrap();
            let mut body = vec![0; BYTES];
            for part in body.chunks_mut(BYTES / 16) {
                client.read_exact(part).await.unwrap();
                client.get_mut().1.refresh_traffic_keys().unwrap();
                client.flush().await.unwrap();
            }
            client.shutdown().await.unwrap();
            ended(&told).await;
        });
    }

    #[test]
    fn other_versions_are_sealed_by_rustls() {
        on_one_thread(async {
            for version in rustls::ALL_VERSIONS {
                let (mut client, server) = pair_by(b"http/1.1", &[version]).await;
                let told = serve(server, 300_000);
                for _ in 0..3 {
                    client.write_all(GET).await.unwrap();
                    let mut body = vec![0; 300_000];
                    client.read_exact(&mut body).await.unwrap();
                    // The heads of the answers.
                    settle(&told).await;
                }
                client.shutdown().await.unwrap();
                ended(&told).await;
            }
        });
    }

    #[test]
    fn a_peer_that_reads_nothing_costs_nothing() {
        on_one_thread(async {
            let (mut client, server) = pair(b"http/1.1").await;
            let told = serve(server, 30 << 20);
            client.write_all(GET).await.unwrap();
            client.flush().await.unwrap();
            let polls = settle(&told).await;
            assert!(polls > 0 && !told.get().1);
            // What it reads then is all there.
            let mut body = Vec::new();
            let mut buf = vec![0; 1 << 16];
            while body.len() < 30 << 20 {
                let got = client.read(&mut buf).await.unwrap();
                assert!(got > 0);
                body.extend_from_slice(&buf[..got]);
            }
            settle(&told).await;
            drop(client);
            ended(&told).await;
        });
    }

    #[test]
    fn an_http_2_connection_sleeps_between_requests() {
        on_one_thread(async {
            let (client, server) = pair(b"h2").await;
            let told = serve(server, 3 << 20);
            let io = TokioIo::new(client);
            let (mut h2, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            let driver = spawn_local(connection);
            for _ in 0..3 {
                let request =
                    http::Request::get("https://localhost/").body(Full::<Bytes>::default());
                let response = h2.send_request(request.unwrap()).await.unwrap();
                let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
                assert_eq!(body.to_bytes().len(), 3 << 20);
                settle(&told).await;
            }
            driver.abort();
            drop(h2);
            ended(&told).await;
        });
    }
}
