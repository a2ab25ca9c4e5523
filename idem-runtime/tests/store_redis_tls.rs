//! The Redis store over TLS.
#![cfg(feature = "redis-tls")]

use test_support::servers;

use std::path::Path;

use idem_runtime::store::{RedisStore, Settled, Store};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use servers::asking::{HOUR, claim, complete, record, replay, win};
use servers::free_port;
use servers::redis::{RedisServer, Sentinel};

/// Creates a certificate authority and its certificate for this host. Returns the authority's
/// certificate in PEM.
fn certify(folder: &Path) -> String {
    let key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&key).expect("a certificate");
    let authority = Issuer::new(authority, key);

    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let server = CertificateParams::new(names).expect("a name");
    let server = server.signed_by(&key, &authority).expect("a certificate");
    let write = |name, text| std::fs::write(folder.join(name), text).expect("ours");
    write("ca.pem", certificate.pem());
    write("server.pem", server.pem());
    write("key.pem", key.serialize_pem());
    certificate.pem()
}

fn start(folder: &Path) -> (RedisServer, String) {
    let port = free_port().to_string();
    let path = |name| folder.join(name).display().to_string();
    let server = RedisServer::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &path("server.pem"),
        "--tls-key-file",
        &path("key.pem"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    (server, format!("rediss://localhost:{port}/"))
}

#[tokio::test]
async fn a_server_with_a_certificate_of_the_authority_is_trusted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = certify(folder.path());
    let (_server, url) = start(folder.path());
    let store = RedisStore::builder()
        .url(url)
        .root_certificate(authority)
        .connect()
        .await
        .expect("the certificate is trusted");
    let holder = win(&store, claim("k")).await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    assert_eq!(replay(&store, "k").await, record(b"{}"));
}

#[tokio::test]
async fn a_server_with_an_unknown_authority_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certify(folder.path());
    let (_server, url) = start(folder.path());
    assert!(RedisStore::connect(url).await.is_err());
}

/// The store connects to the primary as it connects to the Sentinel, and trusts the authority for
/// both.
#[tokio::test]
async fn a_sentinel_with_tls_leads_to_a_primary_with_tls() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = certify(folder.path());
    let (_server, url) = start(folder.path());
    let primary = url.trim_end_matches('/').rsplit(':').next();
    let primary = primary.and_then(|port| port.parse().ok()).expect("a port");
    let port = free_port();
    let path = |name| folder.path().join(name).display().to_string();
    let settings = format!(
        "tls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
         tls-auth-clients no\ntls-replication yes",
        path("server.pem"),
        path("key.pem"),
        path("ca.pem"),
    );
    let _sentinel = Sentinel::watching_port(primary, &settings);
    let store = RedisStore::builder()
        .sentinel("trades", [format!("rediss://localhost:{port}/")])
        .root_certificate(authority)
        .connect()
        .await
        .expect("the certificate is trusted");
    complete(&store, "k").await;
    assert_eq!(replay(&store, "k").await, record(b"{}"));
}
