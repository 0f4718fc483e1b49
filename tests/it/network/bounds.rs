//! How much may go through doors. Never: waits for time.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::world::{World, counting, echo, host};

static OPEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Counts how many it has at once.
fn crowded(mut stream: TcpStream) {
    let now = OPEN.fetch_add(1, Ordering::SeqCst) + 1;
    MOST.fetch_max(now, Ordering::SeqCst);
    let mut word = [0; 5];
    let _gone = stream.read_exact(&mut word).is_err();
    OPEN.fetch_sub(1, Ordering::SeqCst);
    echo(stream);
}

#[test]
fn a_flood_of_connections_waits_and_each_has_its_turn() {
    let world = World::new();
    let port = host(crowded);
    let script = format!(
        "import select
all = [socket.create_connection(('127.0.0.1', {port}), timeout=50) for _ in range(40)]
for s in all: s.sendall(b'helloa')
begun = set()
# As many as may be are under way, and none of them can end yet.
while len(begun) < 3:
    begun |= {{s for s in select.select([s for s in all if s not in begun], [], [], 50)[0] if s.recv(1)}}
for s in all: s.sendall(b'gain'); s.shutdown(socket.SHUT_WR)
done = [s.makefile('rb').read().lstrip(b'a') for s in all]
print(len(done), set(done))"
    );
    let done = world.python(&format!("allow = [\"localhost:{port}\"]\nconnections = 3"), &script);
    assert_eq!(done.stdout, "40 {b'gain'}\n", "{done:#?}");
    assert!(MOST.load(Ordering::SeqCst) <= 3, "{MOST:?}");
    done.has_refused("connect", "", "[network]\nconnections = 6");
    assert_eq!(done.connections().len(), 40);
}

/// A port at which nobody is takes no place.
#[test]
fn there_can_be_more_doors_than_connections() {
    let world = World::new();
    let ports = [host(echo), host(echo), host(echo)];
    let allow: Vec<String> = ports.iter().map(|port| format!("\"localhost:{port}\"")).collect();
    let script = format!(
        "for port in {ports:?}:
    s = socket.create_connection(('127.0.0.1', port), timeout=50); s.sendall(b'hello'); print(s.recv(5)); s.close()"
    );
    let done = world.python(&format!("allow = [{}]\nconnections = 1", allow.join(", ")), &script);
    assert_eq!(done.stdout, "b'hello'\n".repeat(3), "{done:#?}");
}

#[test]
fn bytes_are_bounded_each_way() {
    let world = World::new();
    let (counting, echo) = (host(counting), host(echo));
    let script = |port: u16| {
        format!(
            "s = socket.create_connection(('127.0.0.1', {port}), timeout=50)
try:
    for _ in range(1000): s.sendall(b'x' * 1000); s.setblocking(True)
    s.shutdown(socket.SHUT_WR)
    print(len(s.makefile('rb').read()))
except OSError as error:
    print(errno.errorcode[error.errno])"
        )
    };
    let done =
        world.python(&format!("allow = [\"localhost:{counting}\"]\nup = \"100kB\""), &script(counting));
    assert!(["ECONNRESET\n", "EPIPE\n"].contains(&done.stdout.as_str()), "{done:#?}");
    done.has_refused("transfer", "", "[network]\nup = \"200kB\"");
    let [(_, up, _, by)] = &done.connections()[..] else { panic!("{done:#?}") };
    assert!(*up <= 100_000 && by == "limit", "{up} {by}");
    let done = world.python(&format!("allow = [\"localhost:{echo}\"]\ndown = \"100kB\""), &script(echo));
    assert!(["ECONNRESET\n", "EPIPE\n"].contains(&done.stdout.as_str()), "{done:#?}");
    done.has_refused("transfer", "", "[network]\ndown = \"200kB\"");
    let done = world.python(&format!("allow = [\"localhost:{counting}\"]\nup = \"1MB\""), &script(counting));
    assert_eq!(done.stdout, "13\n", "{done:#?}");
}

/// Half-open connections, refused ones and questions without end: the record stays small, and the cell ends when its command does.
#[test]
fn a_flood_of_refusals_is_counted_and_ends_with_the_cell() {
    let world = World::new();
    let script = "
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(3000):
    s.sendto(b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\5' + b'%05d' % n + b'\\4evil\\0\\0\\1\\0\\1', ('127.0.0.53', 53))
open_ = [socket.create_connection(('door.internal', 443)) for _ in range(100)]
for n in range(2000):
    try: socket.create_connection(('192.0.2.1', 1 + n))
    except OSError: pass
print('done')";
    let done = world
        .python("allow = [\"door.internal:443\"]\nhosts = { \"door.internal\" = \"127.0.0.1\" }", script);
    assert_eq!(done.stdout, "done\n", "{done:#?}");
    let violations = done.report["violations"].as_array().unwrap();
    assert!(violations.len() <= 64, "{}", violations.len());
    let others = violations.iter().find(|violation| violation["operation"] == "other connections");
    let others = others.unwrap_or_else(|| panic!("{violations:#?}"));
    assert!(others["count"].as_u64().unwrap() > 500, "{others}");
}
