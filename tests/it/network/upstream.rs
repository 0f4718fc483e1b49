//! A server of HTTP behind TLS, and what came to it. Never: checks anything by itself.

use std::fs;
use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::world::host_at;

/// What the door puts in.
pub(super) const SECRET: &str = "s3cr3t/Value+42-of-the-door";

pub(super) fn certificate(name: &str) -> PathBuf {
    crate::project().join("tests/it/serve/certificates").join(name)
}

/// A server of HTTP behind TLS, and the requests that came to it.
pub(super) struct Upstream {
    pub(super) port: u16,
    pub(super) asked: Arc<Mutex<Vec<String>>>,
}

/// Lets who waits within an answer go on.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

impl Upstream {
    pub(super) fn new() -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (all, gate) = (Arc::clone(&asked), Arc::<Gate>::default());
        let chain = vec![CertificateDer::from_pem_file(certificate("certificate.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(certificate("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
        let serve = move |stream: TcpStream| {
            let stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut stream = BufReader::new(stream);
            while let Some(request) = request(&mut stream) {
                all.lock().unwrap().push(request.clone());
                match answer(stream.get_mut(), &request, &gate) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        let _hung_up = std::io::Read::read(&mut stream, &mut [0]).is_err();
                        return;
                    }
                    Err(_over) => return,
                }
            }
        };
        let at: SocketAddr = host_at("127.0.0.1:0".parse().unwrap(), serve).unwrap();
        Self { port: at.port(), asked }
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// A profile whose door leads here.
    pub(super) fn network(&self, rules: &str) -> String {
        let port = self.port;
        format!(
            "allow = [\"tools.example:{port}\"]\nhosts = {{ \"tools.example\" = \"127.0.0.1\" }}\n\
             [network.http.\"tools.example:{port}\"]\ntls = \"end\"\nroots = {:?}\n{rules}",
            certificate("authority.pem")
        )
    }

    pub(super) fn door(&self) -> String {
        format!("tools.example:{}", self.port)
    }
}

/// Head and body of one, as they came.
fn request(stream: &mut impl std::io::BufRead) -> Option<String> {
    let mut text = String::new();
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(told) = lower.strip_prefix("content-length:") {
            length = told.trim().parse().unwrap();
        }
        chunked |= lower.starts_with("transfer-encoding:");
        text.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    while chunked {
        let mut size = String::new();
        stream.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).ok()?;
        text.push_str(&String::from_utf8_lossy(&chunk[..size]));
        chunked = size > 0;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    text.push_str(&String::from_utf8_lossy(&body));
    Some(text)
}

/// Says the request again, or what its path asks for.
fn answer(stream: &mut impl std::io::Write, request: &str, gate: &Gate) -> std::io::Result<()> {
    let path = request.split(' ').nth(1).unwrap();
    match path {
        "/v1/large" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n")?;
            (0..3000).try_for_each(|_| stream.write_all(&[b'x'; 1000]))?;
        }
        // In pieces, the secret in two of them; between them nothing, until somebody asks for "/v1/on".
        "/v1/pieces" => {
            write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Echo: {SECRET}\r\n\r\n")?;
            let (one, other) = SECRET.split_at(9);
            for piece in ["first\n", one, other, "\nlast\n"] {
                if piece == other {
                    gate.wait();
                }
                write!(stream, "{:x}\r\n{piece}\r\n", piece.len())?;
                stream.flush()?;
            }
            write!(stream, "0\r\n\r\n")?;
        }
        // Until who asked hangs up.
        "/v1/silent" => return Err(std::io::Error::from(std::io::ErrorKind::WouldBlock)),
        "/v1/on" => {
            gate.open();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        "/v1/cut" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
            stream.flush()?;
            return Err(std::io::Error::other("over"));
        }
        // Is the secret where everybody on the host can see it?
        "/v1/scan" => {
            let found = seen_on_the_host();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{found}", found.len())?;
        }
        _ => {
            let body = if request.starts_with("HEAD") { "" } else { request };
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nKeep-Alive: timeout=9\r\n\r\n{body}",
                request.len()
            )?;
        }
    }
    stream.flush()
}

/// Command lines and environments of all processes that have the secret in them.
fn seen_on_the_host() -> String {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let files = processes.flat_map(|process| ["cmdline", "environ"].map(|file| process.join(file)));
    let has = |file: &PathBuf| {
        fs::read(file)
            .is_ok_and(|bytes| bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()))
    };
    let found: Vec<String> = files.filter(has).map(|file| file.display().to_string()).collect();
    format!("seen: {found:?}")
}
