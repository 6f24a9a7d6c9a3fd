//! Claim: a full TLS handshake costs the server little more than the two things that it can't
//! do without (the signature and the key exchange), and a resumed one no signature.
//!
//! Both ends run in this process without sockets; only the server's part is timed. Beside it
//! stands the speed of the bare P-256 signature on the same machine in the same run.

#![allow(missing_docs, reason = "a program")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::tls::{Metrics, Tickets, Tls};

const ROUNDS: u32 = 3000;
const NAME: &str = "edge.test";

fn main() {
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate can be made");
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("a new registry");
    let chain = vec![certificate.der().clone()];
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let shown = CertifiedKey::from_der(chain, private, &default_provider()).expect("a pair");
    let tls = Tls::new(shown, Tickets::new(None), metrics).expect("a certificate");
    let server = Arc::new(tls.tcp().expect("a configuration"));
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let client = |resumption| {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = resumption;
        Arc::new(config)
    };
    let sign = signatures(&key.serialize_der());
    println!("P-256 signature alone: {sign:.0} a second of CPU");
    for (kind, config) in [
        (HandshakeKind::Full, client(Resumption::disabled())),
        (HandshakeKind::Resumed, client(Resumption::in_memory_sessions(4))),
    ] {
        shake(&server, &config);
        let mut spent = Duration::ZERO;
        for _ in 0..ROUNDS {
            let (took, was) = shake(&server, &config);
            assert_eq!(was, kind, "it was to be {kind:?}");
            spent += took;
        }
        let rate = f64::from(ROUNDS) / spent.as_secs_f64();
        println!("{kind:?} handshakes: {rate:.0} a second, {:.2} of it", rate / sign);
    }
}

fn signatures(key: &[u8]) -> f64 {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key).expect("its key");
    let (random, started) = (SystemRandom::new(), Instant::now());
    for round in 0..ROUNDS {
        let signed = key.sign(&random, &round.to_be_bytes()).expect("it signs");
        std::hint::black_box(signed);
    }
    f64::from(ROUNDS) / started.elapsed().as_secs_f64()
}

/// One handshake, and what of its time was the server's.
fn shake(
    server: &Arc<rustls::ServerConfig>,
    client: &Arc<ClientConfig>,
) -> (Duration, HandshakeKind) {
    let name = ServerName::try_from(NAME).expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
    let mut spent = Duration::ZERO;
    let mut wire = Vec::new();
    let started = Instant::now();
    let mut served = ServerConnection::new(Arc::clone(server)).expect("a server");
    spent += started.elapsed();
    while served.is_handshaking() || client.is_handshaking() || served.wants_write() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("a buffer takes all");
        }
        let started = Instant::now();
        let mut sent = wire.as_slice();
        while !sent.is_empty() {
            served.read_tls(&mut sent).expect("a buffer gives all");
            served.process_new_packets().expect("the client is right");
        }
        let mut answer = Vec::new();
        while served.wants_write() {
            served.write_tls(&mut answer).expect("a buffer takes all");
        }
        spent += started.elapsed();
        let mut answer = answer.as_slice();
        while !answer.is_empty() {
            client.read_tls(&mut answer).expect("a buffer gives all");
            client.process_new_packets().expect("the server is right");
        }
    }
    let started = Instant::now();
    let kind = served.handshake_kind().expect("it is done");
    drop(served);
    (spent + started.elapsed(), kind)
}
