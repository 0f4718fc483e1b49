//! Doors of port 443: TLS between the program and the server, and the name that it asks for. Never: runs where the port cannot be
//! had.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::world::{World, echo, host_at};
use crate::cell::note;

pub(super) fn file(name: &str) -> PathBuf {
    crate::project().join("tests/it/serve/certificates").join(name)
}

/// What a server has of a client that speaks TLS.
pub(super) type Tls = StreamOwned<ServerConnection, TcpStream>;

/// A server that does this with whoever speaks TLS with it, at port 443 of an address of the test's own.
#[track_caller]
pub(super) fn speaks(address: &str, serve: impl Fn(&mut Tls) + Clone + Send + 'static) -> bool {
    let chain = vec![CertificateDer::from_pem_file(file("certificate.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    listens(address, move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        serve(&mut stream);
        stream.conn.send_close_notify();
        let _gone = stream.flush().is_err();
    })
}

/// The network section with a door to it, by the name in its certificate.
pub(super) fn door_to(address: &str) -> String {
    format!("allow = [\"tools.example:443\"]\nhosts = {{ \"tools.example\" = \"{address}\" }}")
}

/// One that says `secret`.
#[track_caller]
fn server(address: &str) -> bool {
    speaks(address, |stream| {
        let _request = stream.read(&mut [0; 1024]).is_err();
        let _gone = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nsecret").is_err();
    })
}

/// Does this with each connection to port 443 of the address, if that can be had.
#[track_caller]
fn listens(address: &str, serve: impl Fn(TcpStream) + Clone + Send + 'static) -> bool {
    let made = host_at(SocketAddr::new(address.parse().unwrap(), 443), serve);
    if made.is_err() {
        note("this user cannot listen at port 443");
    }
    made.is_ok()
}

/// Python's TLS without a look at certificates, asking for this name.
fn asking(name: &str) -> String {
    let name = if name.is_empty() { "None".to_owned() } else { format!("'{name}'") };
    format!(
        "import ssl
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
s = socket.create_connection(('tools.example', 443), timeout=20)
try:
    t = context.wrap_socket(s, server_hostname={name})
    t.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    print(t.recv(1000)[-6:].decode())
except OSError as error:
    print(errno.errorcode.get(error.errno, str(error)))"
    )
}

#[test]
fn tls_is_with_the_server_itself_and_asks_for_the_door_and_nothing_else() {
    let world = World::new();
    let address = "127.71.0.1";
    if !server(address) {
        return;
    }
    let network = door_to(address);
    let authority = file("authority.pem");
    let authority = authority.to_str().unwrap();
    let curl = ["/usr/bin/curl", "-sS", "-m", "20", "--cacert", authority, "https://tools.example/"];
    let done = world.exec(&network, &["--read", authority], &curl);
    assert_eq!((done.stdout.as_str(), done.code), ("secret", 0), "{done:#?}");
    let [(to, up, down, _)] = &done.connections()[..] else { panic!("{done:#?}") };
    assert!(to == "tools.example:443" && *up > 200 && *down > 500, "{to} {up} {down}");
    assert!(done.refused().iter().all(|(_, object, _)| object.is_empty()), "{:?}", done.refused());

    assert_eq!(world.python(&network, &asking("TOOLS.example")).stdout, "secret\n");
    let other = world.python(&network, &asking("evil.example"));
    assert_eq!(other.stdout, "ECONNRESET\n", "{other:#?}");
    let allow = "[network]\nallow = [\"evil.example:443\"]";
    other.has_refused("connect", "tools.example:443 for `evil.example`", allow);
    assert!(other.connections().is_empty());
    let any = "[network]\nsni = \"any\"";
    let none = world.python(&network, &asking(""));
    assert_eq!(none.stdout, "ECONNRESET\n", "{none:#?}");
    none.has_refused("connect", "tools.example:443", any);
    let plain = "s = socket.create_connection(('tools.example', 443), timeout=20); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
try: print(s.recv(100))
except OSError as error: print(errno.errorcode[error.errno])";
    let plain = world.python(&network, plain);
    assert_eq!(plain.stdout, "ECONNRESET\n", "{plain:#?}");
    plain.has_refused("connect", "tools.example:443", any);

    let open = format!("{network}\nsni = \"any\"");
    for name in ["evil.example", ""] {
        assert_eq!(world.python(&open, &asking(name)).stdout, "secret\n", "{name}");
    }
}

/// The greeting of a client is passed on as it was cut, also in records and packets of single bytes.
#[test]
fn a_greeting_in_pieces_is_read_and_passed_on_unchanged() {
    let world = World::new();
    let address = "127.71.0.2";
    if !server(address) {
        return;
    }
    let network = door_to(address);
    let script = "import ssl
s = socket.create_connection(('tools.example', 443), timeout=20); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
t = context.wrap_bio(inward, outward, server_hostname='tools.example')
try: t.do_handshake()
except ssl.SSLWantReadError: pass
hello = outward.read()[5:]
records = [b'\\x16\\x03\\x01' + len(part).to_bytes(2, 'big') + part for part in (hello[i:i + 7] for i in range(0, len(hello), 7))]
for byte in b''.join(records): s.sendall(bytes([byte]))
while True:
    try: t.do_handshake(); break
    except ssl.SSLWantReadError: s.sendall(outward.read()); inward.write(s.recv(65536))
t.write(b'GET / HTTP/1.0\\r\\n\\r\\n'); s.sendall(outward.read())
while True:
    try: print(t.read(1000)[-6:].decode()); break
    except ssl.SSLWantReadError: inward.write(s.recv(65536))";
    let done = world.python(&network, script);
    assert_eq!(done.stdout, "secret\n", "{done:#?}");
}

/// A greeting with a part that nobody here can read, as browsers send it: what passes comes back.
#[test]
fn what_is_encrypted_passes_unchanged_beside_the_name_of_the_door_where_the_profile_says_so() {
    let world = World::new();
    let address = "127.71.0.3";
    if !listens(address, echo) {
        return;
    }
    let network = door_to(address);
    let greet = |sni: &str, name: &str| {
        let script = format!(
            "import os, ssl
context = ssl.create_default_context(); context.check_hostname = False
inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
try: context.wrap_bio(inward, outward, server_hostname={name}).do_handshake()
except ssl.SSLWantReadError: pass
hello = bytearray(outward.read())
def number(at, size): return int.from_bytes(hello[at:at + size], 'big')
# Behind the heads, the version and the random number: session, suites, compressions; then come the extensions.
at = 5 + 4 + 2 + 32
for size in (1, 2, 1): at += size + number(at, size)
content = bytes([0, 0, 1, 0, 1, 7]) + (32).to_bytes(2, 'big') + os.urandom(32) + (144).to_bytes(2, 'big') + os.urandom(144)
more = (0xfe0d).to_bytes(2, 'big') + len(content).to_bytes(2, 'big') + content
for place, size in ((3, 2), (6, 3), (at, 2)): hello[place:place + size] = (number(place, size) + len(more)).to_bytes(size, 'big')
hello += more
s = socket.create_connection(('tools.example', 443), timeout=20)
try:
    s.sendall(hello)
    print('unchanged' if s.recv(len(hello), socket.MSG_WAITALL) == hello else 'changed')
except OSError as error: print(errno.errorcode.get(error.errno, str(error)))"
        );
        world.python(&format!("{network}\n{sni}"), &script)
    };
    let outer = "sni = \"outer\"";
    let passed = greet(outer, "'Tools.example'");
    assert_eq!(passed.stdout, "unchanged\n", "{passed:#?}");
    let [(to, up, down, _)] = &passed.connections()[..] else { panic!("{passed:#?}") };
    assert!(to == "tools.example:443" && up == down && *up > 400, "{to} {up} {down}");
    assert!(passed.refused().is_empty(), "{passed:#?}");
    let any = "sni = \"any\"";
    for (sni, name, allow) in [
        ("", "'tools.example'", outer),
        (outer, "'evil.example'", any),
        (outer, "None", any),
        ("", "'evil.example'", any),
    ] {
        let refused = greet(sni, name);
        assert_eq!(refused.stdout, "ECONNRESET\n", "{sni} {name}: {refused:#?}");
        refused.has_refused("connect", "tools.example:443", &format!("[network]\n{allow}"));
        assert!(refused.connections().is_empty(), "{refused:#?}");
    }
}

/// Who says nothing, says it slowly, or only half of it has a place among `connections` and no other's, and not for long.
#[test]
fn half_open_and_slow_greetings_hold_up_nobody_else_and_come_to_an_end() {
    let world = World::new();
    let address = "127.71.0.4";
    if !server(address) {
        return;
    }
    let network = format!("connections = 8\n{}", door_to(address));
    let script = "import select, ssl, threading
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
ends, done = [], []
def there(first=b''):
    s = socket.create_connection(('tools.example', 443), timeout=50); s.sendall(first)
    return s
def end(s):
    try: s.recv(100); ends.append('closed')
    except ConnectionResetError: ends.append('reset')
def drip(s):
    # Byte by byte, for longer than anybody would wait for it.
    for byte in b'\\x01\\x00\\x0f\\xfc\\x03\\x03' + bytes(4000):
        if select.select([s], [], [], 0.2)[0]: return end(s)
        s.sendall(bytes([byte]))
def ask():
    with context.wrap_socket(there(), server_hostname='tools.example') as t:
        t.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); done.append(t.recv(1000)[-6:])
silent = [there() for _ in range(2)]
slow = [there(b'\\x16\\x03\\x01\\x10\\x00') for _ in range(3)]
half = there(b'\\x16\\x03'); half.shutdown(socket.SHUT_WR); end(half)
gone = there(); gone.shutdown(socket.SHUT_WR); end(gone)
print(ends); ends.clear()
dripping = [threading.Thread(target=drip, args=(s,)) for s in slow]
asking = [threading.Thread(target=ask) for _ in range(40)]
for t in dripping + asking: t.start()
for t in asking: t.join()
print(len(done), set(done), ends)
for t in dripping: t.join()
for s in silent: end(s)
print(ends)";
    let done = world.python(&network, script);
    let reset = "'reset', 'reset', 'reset'";
    assert_eq!(
        done.stdout,
        format!("['reset', 'closed']\n40 {{b'secret'}} []\n[{reset}, 'reset', 'reset']\n"),
        "{done:#?}"
    );
    done.has_refused("connect", "tools.example:443", "[network]\nsni = \"any\"");
    done.has_refused("connect", "", "[network]\nconnections = 16");
    assert_eq!(done.connections().iter().filter(|(_, up, ..)| *up > 200).count(), 40, "{done:#?}");
}
