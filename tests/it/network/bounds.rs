//! How much may go through doors, how often and for how long. Never: waits for time but what a limit itself gives.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::world::{Executed, World, counting, echo, host};

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

pub(super) fn entry(port: u16, limits: &str) -> String {
    format!("{{ to = \"localhost:{port}\", {limits} }}")
}

fn line(port: u16, limits: &str) -> String {
    format!("[network]\nallow = [{}]", entry(port, limits))
}

/// One that takes connections and says nothing; those that wait for it are in nobody's way, also at its own port.
#[test]
fn a_door_that_is_full_takes_no_place_of_another() {
    let world = World::new();
    let port = host(echo);
    let network = format!(
        "connections = 3
allow = [{{ to = \"slow.internal:{port}\", connections = 1 }}, \"quick.internal:{port}\"]
hosts = {{ \"slow.internal\" = \"127.0.0.1\", \"quick.internal\" = \"127.0.0.1\" }}"
    );
    let script = format!(
        "import select
def connect(name): return socket.create_connection((name, {port}), timeout=50)
first = connect('slow.internal'); first.sendall(b'first'); print(first.recv(5))
waits = [connect('slow.internal') for _ in range(32)]
for s in waits: s.sendall(b'later')
# The answer to the connect may be late.
try: print(connect('slow.internal').recv(1))
except ConnectionResetError: print('hung up')
for _ in range(3):
    s = connect('quick.internal'); s.sendall(b'quick'); print(s.recv(5)); s.close()
print(select.select(waits, [], [], 0)[0])
first.close(); print(waits[0].recv(5))"
    );
    let done = world.python(&network, &script);
    assert_eq!(done.stdout, "b'first'\nhung up\nb'quick'\nb'quick'\nb'quick'\n[]\nb'later'\n", "{done:#?}");
    let allow = format!("[network]\nallow = [{{ to = \"slow.internal:{port}\", connections = 2 }}]");
    done.has_refused("connect", &format!("slow.internal:{port}"), &allow);
    let words = format!(
        "doors: slow.internal:{port} at 127.64.0.1 (connections 1), quick.internal:{port} at 127.64.0.2"
    );
    assert_eq!(done.report["receipt"]["layers"]["network"], words);
}

/// The section's own limits are of all doors together, and hold beside a door's.
#[test]
fn bytes_of_one_door_are_bounded_by_themselves() {
    let world = World::new();
    let (bounded, free) = (host(counting), host(counting));
    let script = |port: u16, bytes: u32| {
        format!(
            "s = socket.create_connection(('127.0.0.1', {port}), timeout=50)
try:
    s.sendall(b'x' * {bytes}); s.shutdown(socket.SHUT_WR); print(s.makefile('rb').read())
except OSError as error: print('ended')\n"
        )
    };
    let two = |up: &str| {
        format!("up = \"{up}\"\nallow = [{}, \"localhost:{free}\"]", entry(bounded, "up = \"100kB\""))
    };
    let both = [script(bounded, 60_000), script(bounded, 60_000), script(free, 60_000)].concat();
    let done = world.python(&two("1MB"), &both);
    assert_eq!(done.stdout, "b'60000 bytes'\nended\nb'60000 bytes'\n", "{done:#?}");
    done.has_refused("transfer", &format!("localhost:{bounded}"), &line(bounded, "up = \"200kB\""));
    let by: Vec<String> = done.connections().into_iter().map(|(.., by)| by).collect();
    assert_eq!(by.iter().filter(|by| *by == "limit").count(), 1, "{by:?}");
    let done = world.python(&two("100kB"), &[script(bounded, 60_000), script(free, 60_000)].concat());
    assert_eq!(done.stdout, "b'60000 bytes'\nended\n", "{done:#?}");
    done.has_refused("transfer", "", "[network]\nup = \"200kB\"");
}

#[test]
fn a_connection_lasts_no_longer_than_its_door_lets_it() {
    let world = World::new();
    let (own, section, deaf) = (host(echo), host(echo), host(echo));
    let network = format!(
        "time = \"300ms\"\nallow = [{}, \"localhost:{section}\", {}]",
        entry(own, "time = \"200ms\""),
        entry(deaf, "time = \"1m\"")
    );
    let script = format!(
        "import time
def last(port):
    began = time.monotonic()
    s = socket.create_connection(('127.0.0.1', port), timeout=50); s.sendall(b'hello'); s.recv(5)
    try: print(s.recv(1))
    except ConnectionResetError: print('reset')
    return time.monotonic() - began
long = socket.create_connection(('127.0.0.1', {deaf}), timeout=50)
print(0.2 <= last({own}) < 10, 0.3 <= last({section}) < 10)
long.sendall(b'hello'); print(long.recv(5))"
    );
    let done = world.python(&network, &script);
    assert_eq!(done.stdout, "reset\nreset\nTrue True\nb'hello'\n", "{done:#?}");
    done.has_refused("stay connected", &format!("localhost:{own}"), &line(own, "time = \"400ms\""));
    done.has_refused("stay connected", &format!("localhost:{section}"), "[network]\ntime = \"600ms\"");
    let by: Vec<String> = done.connections().into_iter().map(|(.., by)| by).collect();
    assert_eq!(by, ["limit", "limit", "cell"], "{done:#?}");
}

/// As many as in a second come at once; the next one has its turn when it is due, and another door's is another.
#[test]
fn new_connections_come_at_the_rate_of_their_door() {
    let world = World::new();
    let (bounded, other) = (host(echo), host(echo));
    let network = format!("rate = 3\nallow = [{}, \"localhost:{other}\"]", entry(bounded, "rate = 5"));
    let script = format!(
        "import time
def come(port, count):
    began, taken = time.monotonic(), []
    for s in [socket.create_connection(('127.0.0.1', port), timeout=50) for _ in range(count)]:
        s.sendall(b'hello'); s.recv(5); taken.append(time.monotonic() - began)
    return taken
taken = come({bounded}, 7)
print(taken[5] >= 0.19, taken[6] >= 0.39, taken[6] < 10)
print(come({other}, 4)[3] >= 0.32)"
    );
    let done = world.python(&network, &script);
    assert_eq!(done.stdout, "True True True\nTrue\n", "{done:#?}");
    done.has_refused("connect", &format!("localhost:{bounded}"), &line(bounded, "rate = 10"));
    done.has_refused("connect", &format!("localhost:{other}"), "[network]\nrate = 6");
}

/// Names of a pattern have its limits together, whatever a call's arguments name of them.
#[test]
fn names_below_a_pattern_share_its_limits() {
    let world = World::new();
    let port = host(echo);
    let network = format!(
        "allow = [{{ to = \"*.internal:{port}\", connections = 1 }}]
hosts = {{ \"a.internal\" = \"127.0.0.1\", \"b.internal\" = \"127.0.0.1\" }}"
    );
    let script = format!(
        "import select
a = socket.create_connection(('a.internal', {port}), timeout=50); a.sendall(b'hello'); print(a.recv(5))
b = socket.create_connection(('b.internal', {port}), timeout=50); b.sendall(b'world')
print(select.select([b], [], [], 0.2)[0])
a.close(); print(b.recv(5))"
    );
    let done = world.python(&network, &script);
    assert_eq!(done.stdout, "b'hello'\n[]\nb'world'\n", "{done:#?}");
    let allow = format!("[network]\nallow = [{{ to = \"*.internal:{port}\", connections = 2 }}]");
    done.has_refused("connect", &format!("*.internal:{port}"), &allow);
}

/// Says five bytes again, as often as they are said.
pub(super) fn echo_at(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut word = [0; 5];
                while stream.read_exact(&mut word).and_then(|()| stream.write_all(&word)).is_ok() {}
            });
        }
    });
}

/// Two sockets at which each connection is answered.
fn sockets(world: &World) -> [String; 2] {
    let place = world.0.0.canonicalize().unwrap();
    ["slow.sock", "quick.sock"].map(|name| {
        let path = place.join(name);
        echo_at(&path);
        path.display().to_string()
    })
}

#[test]
fn a_socket_has_limits_of_its_own() {
    let world = World::new();
    let [slow, quick] = sockets(&world);
    let script = format!(
        "import select
def connect(path):
    s = socket.socket(socket.AF_UNIX); s.connect(path); s.sendall(b'hello'); return s
first = connect({slow:?}); print(first.recv(5))
second = connect({slow:?})
for _ in range(2): print(connect({quick:?}).recv(5))
print(select.select([second], [], [], 0)[0])
first.close(); print(second.recv(5))"
    );
    let network =
        format!("connections = 3\nallow-unix = [{{ path = {slow:?}, connections = 1 }}, {quick:?}]");
    let done = world.python(&network, &script);
    assert_eq!(done.stdout, "b'hello'\nb'hello'\nb'hello'\n[]\nb'hello'\n", "{done:#?}");
    let line = format!("[network]\nallow-unix = [{{ path = {slow:?}, connections = 2 }}]");
    done.has_refused("connect", &slow, &line);
    let words = format!("doors: {slow} (connections 1), {quick}");
    assert_eq!(done.report["receipt"]["layers"]["network"], words);
}

/// What a section says of each door holds for those with a path too.
#[test]
fn a_socket_has_the_rate_and_the_time_of_the_section() {
    let world = World::new();
    let door = world.0.0.canonicalize().unwrap().join("door.sock");
    echo_at(&door);
    let script = format!(
        "import time
began, taken, all = time.monotonic(), [], []
for _ in range(4):
    s = socket.socket(socket.AF_UNIX); s.connect({door:?}); s.sendall(b'hello'); print(s.recv(5))
    taken.append(time.monotonic() - began); all.append(s)
print(taken[3] >= 0.32, all[3].recv(1), time.monotonic() - began < 20)",
        door = door.display().to_string(),
    );
    let network = format!("rate = 3\ntime = \"500ms\"\nallow-unix = [\"{}\"]", door.display());
    let done = world.python(&network, &script);
    assert_eq!(done.stdout, format!("{}True b'' True\n", "b'hello'\n".repeat(4)), "{done:#?}");
    let door = door.display().to_string();
    done.has_refused("connect", &door, "[network]\nrate = 6");
    done.has_refused("stay connected", &door, "[network]\ntime = \"1s\"");
}

/// A socket waits for its door before it takes a place of the cell's, and one that finds none is told of.
#[test]
fn a_socket_that_is_full_takes_no_place_of_another() {
    let world = World::new();
    let [slow, quick] = sockets(&world);
    let script = format!(
        "def connect(path):
    s = socket.socket(socket.AF_UNIX); s.connect(path); s.sendall(b'hello'); return s
first = connect({slow:?}); print(first.recv(5))
waits = [connect({slow:?}) for _ in range(32)]
s = socket.socket(socket.AF_UNIX); s.connect({slow:?}); print(s.recv(5))
for _ in range(3): s = connect({quick:?}); print(s.recv(5)); s.close()
first.close(); print(waits[0].recv(5))"
    );
    let network =
        format!("connections = 3\nallow-unix = [{{ path = {slow:?}, connections = 1 }}, {quick:?}]");
    let done = world.python(&network, &script);
    let quick = "b'hello'\n".repeat(3);
    assert_eq!(done.stdout, format!("b'hello'\nb''\n{quick}b'hello'\n"), "{done:#?}");
    let rule = format!("`connections` of `{slow}` in `[network]`: 32 waited, and the next one was hung up");
    has_rule(&done, &rule);
}

/// Was this refused, by this rule?
#[track_caller]
pub(super) fn has_rule(done: &Executed, rule: &str) {
    let violations = done.report["violations"].as_array().unwrap();
    assert!(violations.iter().any(|one| one["rule"] == rule), "{rule} is not in {violations:#?}");
}

/// Each that waits is a descriptor of the process that keeps doors, and a cell can have many doors.
#[test]
fn at_all_doors_together_so_many_wait() {
    let world = World::new();
    let ports: Vec<u16> = (0..5).map(|_| host(echo)).collect();
    let script = format!(
        "import select
def connect(port): return socket.create_connection(('127.0.0.1', port), timeout=50)
def first(port):
    s = connect(port); s.sendall(b'hello'); s.recv(5); return s
held = [[first(port)] + [connect(port) for _ in range(32)] for port in {ports:?}[:4]]
last = {ports:?}[4]; one = first(last)
# The answer to the connect may be late.
try: s = connect(last); print(bool(select.select([s], [], [], 10)[0]))
except ConnectionResetError: print(True)
held[0][0].close(); held[0][1].sendall(b'again'); print(held[0][1].recv(5))
s = connect(last); one.close(); s.sendall(b'later'); print(s.recv(5))"
    );
    let allow: Vec<String> = ports.iter().map(|port| entry(*port, "connections = 1")).collect();
    let done = world.python(&format!("allow = [{}]", allow.join(", ")), &script);
    assert_eq!(done.stdout, "True\nb'again'\nb'later'\n", "{done:#?}");
    let rule = format!(
        "`connections` of `localhost:{}` in `[network]`: at all doors together 128 waited, and the next one was hung up",
        ports[4]
    );
    has_rule(&done, &rule);
}
