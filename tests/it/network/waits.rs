//! Who waits for a door and hangs up meanwhile. Never: waits for time but what the kernel takes to forget a connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Mutex;

use super::bounds::{echo_at, entry, has_rule};
use super::world::{World, echo, host};

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Says five bytes again, as often as they are said, and keeps them.
fn kept(mut stream: TcpStream) {
    let mut word = [0; 5];
    while stream.read_exact(&mut word).is_ok() {
        SAID.lock().unwrap().push(String::from_utf8_lossy(&word).into_owned());
        if stream.write_all(&word).is_err() {
            return;
        }
    }
}

/// Whatever it has said; but one that has said all, and may hear the answer, is there.
#[test]
fn who_hangs_up_leaves_its_place_to_another() {
    let world = World::new();
    let (port, free) = (host(kept), host(echo));
    let script = format!(
        "import select, struct, time
def connect(word):
    s = socket.create_connection(('127.0.0.1', {port}), timeout=50); s.sendall(word); return s
other = socket.create_connection(('127.0.0.1', {free}), timeout=50)
def waits():
    try: s = connect(b'after')
    except OSError: return None
    # Behind this one the other door has an answer: it is hung up by now, or waits.
    other.sendall(b'there'); other.recv(5)
    return None if select.select([s], [], [], 0)[0] else s
first = connect(b'first'); print(first.recv(5))
half = connect(b'later'); half.shutdown(socket.SHUT_WR)
closed = connect(b'given')
given = [connect(b'given') for _ in range(30)]
print(waits())
for s in given: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()
after = [waits() for _ in range(30)]; print(None in after, waits())
# The kernel forgets it sooner than it would.
closed.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1); closed.close()
last, began = None, time.monotonic()
while not last and time.monotonic() < began + 50: time.sleep(0.05); last = waits()
first.close(); print(half.recv(5)); half.close()
for s in after + [last]: print(s.recv(5)); s.close()"
    );
    let done =
        world.python(&format!("allow = [{}, \"localhost:{free}\"]", entry(port, "connections = 1")), &script);
    let after = "b'after'\n".repeat(31);
    assert_eq!(done.stdout, format!("b'first'\nNone\nFalse None\nb'later'\n{after}"), "{done:#?}");
    let said = SAID.lock().unwrap();
    assert_eq!((&*said[0], &*said[1], said.len()), ("first", "later", 33), "{said:?}");
    assert!(!said.contains(&"given".to_owned()), "{said:?}");
    let left =
        done.connections().into_iter().filter(|(_, up, down, by)| (*up, *down, &**by) == (0, 0, "cell"));
    assert_eq!(left.count(), 31, "{done:#?}");
}

#[test]
fn a_socket_that_is_closed_leaves_its_place_to_another() {
    let world = World::new();
    let door = world.0.0.canonicalize().unwrap().join("door.sock").display().to_string();
    echo_at(Path::new(&door));
    let script = format!(
        "def connect():
    s = socket.socket(socket.AF_UNIX); s.connect({door:?}); s.sendall(b'hello'); return s
first = connect(); print(first.recv(5))
waits = [connect() for _ in range(32)]
s = socket.socket(socket.AF_UNIX); s.connect({door:?}); print(s.recv(5))
half = waits.pop(); half.shutdown(socket.SHUT_WR)
for s in waits: s.close()
after = [connect() for _ in range(31)]
first.close(); print(half.recv(5)); half.close()
for s in after: print(s.recv(5)); s.close()"
    );
    let word = "b'hello'\n";
    for (network, rule) in [
        (
            format!("allow-unix = [{{ path = {door:?}, connections = 1 }}]"),
            format!("`connections` of `{door}` in `[network]`: 32 waited, and the next one was hung up"),
        ),
        (
            format!("allow-unix = [{door:?}]\nconnections = 1"),
            "`connections` in `[network]`: 32 waited, and the next one was hung up".to_owned(),
        ),
    ] {
        let done = world.python(&network, &script);
        assert_eq!(done.stdout, format!("{word}b''\n{}", word.repeat(32)), "{done:#?}");
        has_rule(&done, &rule);
        let led = done.connections();
        let left = led.iter().filter(|(_, up, down, by)| (*up, *down, &**by) == (0, 0, "cell"));
        assert_eq!((left.count(), led.len()), (31, 64), "{done:#?}");
    }
}
