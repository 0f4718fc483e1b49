//! TLS on both sides: what is served, and where keys are fetched from. The certificates are for the tests alone, and good for
//! a hundred years. Never: looks inside.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::super::session::world::{Scratch, Setup};
use super::auth::{Issuer, call, claims, setup};
use super::http::{Served, modern, request};

fn file(name: &str) -> PathBuf {
    crate::project().join("tests/it/serve/certificates").join(name)
}

/// One exchange over TLS, to its end.
fn exchange(address: SocketAddr, text: &str) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("authority.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connection =
        ClientConnection::new(Arc::new(config), ServerName::try_from("tools.example").unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
    stream.write_all(text.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn requests_come_over_tls() {
    let scratch = Scratch::new();
    let (certificate, key) = (file("certificate.pem"), file("key.pem"));
    let tls = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let served =
        Served::start(&Setup::default(), &scratch, &[&tls[..], &["--allow-host", "tools.example"]].concat());
    let (headers, body) = modern(&json!(1), "tools/call", json!({"name": "verbatim"}));
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain([("host", "tools.example"), ("connection", "close")])
        .collect();
    let said = exchange(served.address, &request(served.address, "POST", "/mcp", &headers, &body));
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("\"odd\":1.0"), "{said}");
    // Who speaks without it is not understood, and keeps nobody waiting.
    let mut clear = TcpStream::connect(served.address).unwrap();
    clear.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let _cut_off = clear.read_to_end(&mut said).is_err();
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    served.stop(&scratch);
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_at_the_start() {
    let scratch = Scratch::new();
    let (certificate, key) = (file("certificate.pem"), file("key.pem"));
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let authority = file("authority.pem");
    for (certificate, key, expected) in [
        (key, key, "no certificate is in"),
        (certificate, certificate, "cannot read the key in"),
        ("/nonexistent", key, "cannot read the certificates in"),
        (authority.to_str().unwrap(), key, "cannot be used together"),
    ] {
        let options = ["--http", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key];
        let (status, said) = Served::of(&Setup::default(), &scratch, &options).err().expect("it is refused");
        assert!(status.code() == Some(120) && said.contains(expected), "{expected}: {status} {said}");
    }
}

/// A server of keys: what it has, and how often it was asked.
struct Keys {
    address: SocketAddr,
    keys: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Keys {
    fn start(keys: String) -> Self {
        let chain = vec![CertificateDer::from_pem_file(file("certificate.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            keys: Arc::new(Mutex::new(keys)),
            asked: Arc::default(),
        };
        let (keys, asked) = (Arc::clone(&this.keys), Arc::clone(&this.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).is_ok_and(|count| count > 0)
                {
                }
                asked.fetch_add(1, Ordering::Relaxed);
                let body = keys.lock().unwrap().clone();
                let length = body.len();
                let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                let _sent = stream.get_mut().write_all(text.as_bytes()).is_ok();
            }
        });
        this
    }
}

#[test]
fn keys_are_fetched_by_https_and_seldom() {
    let scratch = Scratch::new();
    let issuer = Issuer::new();
    let keys = Keys::start(issuer.keys());
    let jwt = |ca: &str| {
        format!(
            "[auth.jwt]\nissuer = \"https://issuer.example\"\naudience = \"https://tools.example/mcp\"\n\
             jwks = \"https://localhost:{}/jwks\"\n{ca}",
            keys.address.port()
        )
    };
    let authority = format!("jwks-ca = \"{}\"", file("authority.pem").display());
    let served = Served::start(&setup(&jwt(&authority)), &scratch, &[]);
    assert_eq!(keys.asked.load(Ordering::Relaxed), 0);
    for _ in 0..3 {
        assert_eq!(call(&served, &issuer.token("one", &claims("reader")), "who").status, 200);
    }
    assert_eq!(keys.asked.load(Ordering::Relaxed), 1);
    // Tokens with keys that nobody has make it ask no more often.
    for kid in ["two", "three", "four"] {
        assert_eq!(call(&served, &issuer.token(kid, &claims("reader")), "who").status, 401);
    }
    assert_eq!(keys.asked.load(Ordering::Relaxed), 1);
    served.stop(&scratch);

    // A server of keys that shows no certificate of an authority that is trusted has none.
    let other = scratch.0.join("other.pem");
    std::fs::copy(file("certificate.pem"), &other).unwrap();
    *keys.keys.lock().unwrap() = issuer.keys();
    let served = Served::start(&setup(&jwt(&format!("jwks-ca = \"{}\"", other.display()))), &scratch, &[]);
    assert_eq!(call(&served, &issuer.token("one", &claims("reader")), "who").status, 401);
    served.stop(&scratch);
}
