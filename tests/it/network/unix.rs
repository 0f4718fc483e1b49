//! Doors to sockets with a path. Never: connects to a socket that is not a test's own.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::super::session::world::{Setup, session, text};
use super::world::{World, host};

/// Says everything again, and counts who came.
fn echo(path: &Path) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(path).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let serve = |mut stream: UnixStream| {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || serve(stream));
        }
    });
    count
}

fn allow_line(path: &Path) -> String {
    format!("[network]\nallow-unix = [\"{}\"]", path.display())
}

#[test]
fn a_socket_that_is_allowed_is_reached_at_its_path_and_no_other_one() {
    let world = World::new();
    let place = world.0.0.canonicalize().unwrap();
    let (door, other) = (place.join("door.sock"), place.join("other.sock"));
    let (at_door, at_other) = (echo(&door), echo(&other));
    let script = format!(
        "import asyncio, os, stat, threading
door, other = {door:?}, {other:?}
def attempt(path, kind=socket.SOCK_STREAM):
    try:
        s = socket.socket(socket.AF_UNIX, kind); s.connect(path)
        s.sendall(b'hello'); s.shutdown(socket.SHUT_WR)
        print(s.makefile('rb').read().decode())
    except OSError as error: print(errno.errorcode[error.errno])
print(stat.S_ISSOCK(os.stat(door).st_mode))
attempt(door)
attempt(other)
attempt('\\0abstract')
attempt('relative')
attempt(door, socket.SOCK_DGRAM)
s = socket.socket(socket.AF_UNIX); s.connect(door)
try: s.connect(door)
except OSError as error: print(errno.errorcode[error.errno])
async def speak():
    reader, writer = await asyncio.open_unix_connection(door)
    sent = os.urandom(1 << 20) * 8
    writer.write(sent); writer.write_eof()
    print(await reader.read() == sent)
asyncio.run(speak())
s = socket.socket(socket.AF_UNIX)
print(s.get_inheritable(), s.getblocking())
s.bind('/tmp/own')
try: s.listen()
except OSError as error: print(errno.errorcode[error.errno])
",
        door = door.display().to_string(),
        other = other.display().to_string(),
    );
    let network = format!("allow-unix = [\"{}\"]", door.display());
    let done = world.python(&network, &script);
    let wanted = "True\nhello\nEACCES\nEACCES\nEACCES\nEAFNOSUPPORT\nEISCONN\nTrue\nFalse True\nEINVAL\n";
    assert_eq!((done.stdout.as_str(), done.code), (wanted, 0), "{done:#?}");
    assert_eq!((at_door.load(Ordering::SeqCst), at_other.load(Ordering::SeqCst)), (3, 0));
    done.has_refused("connect", &other.display().to_string(), &allow_line(&other));
    let name = door.display().to_string();
    let bytes: Vec<(u64, u64)> = done
        .connections()
        .into_iter()
        .map(|(to, up, down, _)| {
            assert_eq!(to, name);
            (up, down)
        })
        .collect();
    assert!(bytes.contains(&(5, 5)) && bytes.contains(&(8 << 20, 8 << 20)), "{bytes:?}");
    assert_eq!(done.report["receipt"]["layers"]["network"], json!(format!("doors: {name}")));
}

/// The address is read once, by us; what a second thread makes of it afterwards reaches nobody.
#[test]
fn an_address_that_changes_while_it_is_read_leads_to_no_other_socket() {
    let world = World::new();
    let place = world.0.0.canonicalize().unwrap();
    let (door, other) = (place.join("door.sock"), place.join("evil.sock"));
    let (at_door, at_other) = (echo(&door), echo(&other));
    let script = format!(
        "import collections, ctypes, errno, json, os, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
names = [b'\\1\\0' + path.encode() for path in ({door:?}, {other:?})] + [b'\\2\\0' + bytes(60)]
address = ctypes.create_string_buffer(110)
print(os.path.exists({other:?}))
def turn():
    while not over:
        for name in names: address.raw = name.ljust(110, b'\\0')
over = False
thread = threading.Thread(target=turn); thread.start()
answers = collections.Counter()
while answers['0'] < 20 or answers['EACCES'] < 20:
    s = socket.socket(socket.AF_UNIX)
    answers['0' if libc.connect(s.fileno(), address, 110) == 0 else errno.errorcode[ctypes.get_errno()]] += 1
    s.close()
over = True; thread.join(); print(json.dumps(answers))",
        door = door.display().to_string(),
        other = other.display().to_string(),
    );
    // The sockets are in what it may read: on the host's own files, so to say.
    let read = place.display().to_string();
    let network = format!("allow-unix = [\"{}\"]", door.display());
    let command = [&super::world::PYTHON[..], &[script.as_str()]].concat();
    let done = world.exec(&network, &["--read", &read], &command);
    let answers = done.stdout.strip_prefix("True\n").unwrap_or_else(|| panic!("{done:#?}"));
    let answers: std::collections::BTreeMap<String, usize> = serde_json::from_str(answers).unwrap();
    // EISCONN is the kernel's word for an end of a pair, of whatever the address then was; ENETUNREACH and, of none, ECONNREFUSED
    // are ours for one that was half a path and half an address of the internet, when it was read.
    assert!(
        answers.keys().all(|answer| ["0", "EACCES", "EISCONN", "EINVAL", "ENETUNREACH", "ECONNREFUSED"]
            .contains(&answer.as_str())),
        "{answers:?}"
    );
    assert_eq!(at_other.load(Ordering::SeqCst), 0, "{answers:?}");
    assert!(at_door.load(Ordering::SeqCst) > 0, "{done:#?}");
    done.has_refused("connect", &other.display().to_string(), &allow_line(&other));
}

#[test]
fn what_is_no_socket_there_is_not_connected_to_and_descriptors_stay() {
    let world = World::new();
    let place = world.0.0.canonicalize().unwrap();
    let real = place.join("real.sock");
    let at_real = echo(&real);
    symlink(&real, place.join("link.sock")).unwrap();
    std::fs::write(place.join("file.sock"), "").unwrap();
    let taking = UnixListener::bind(place.join("taking.sock")).unwrap();
    let taken = thread::spawn(move || {
        let (stream, _) = taking.accept().unwrap();
        let mut buffer = [0; 64];
        toolcell::sys::socket::receive_what_fits(std::os::fd::AsFd::as_fd(&stream), &mut buffer)
            .unwrap()
            .unwrap()
    });
    let names = ["link", "file", "none", "taking"].map(|name| place.join(name).with_extension("sock"));
    let script = format!(
        "for path in {:?}:
    s = socket.socket(socket.AF_UNIX); s.connect(path)
    try:
        if 'taking' in path:
            try: socket.send_fds(s, [b'hello'], [0])
            except PermissionError: s.sendall(b'hello')
        print(s.recv(5))
    except OSError as error: print(errno.errorcode[error.errno])",
        names.each_ref().map(|path| path.display().to_string())
    );
    let allow = names.each_ref().map(|path| format!("\"{}\"", path.display())).join(", ");
    let done = world.python(&format!("allow-unix = [{allow}]"), &script);
    assert_eq!(done.stdout, "b''\nb''\nb''\nb''\n", "{done:#?}");
    let (count, descriptors) = taken.join().unwrap();
    assert_eq!((count, descriptors.len(), at_real.load(Ordering::SeqCst)), (5, 0, 0));
    for (name, why) in [(&names[0], "it is a symbolic link"), (&names[1], "it is no socket")] {
        let violations = done.report["violations"].as_array().unwrap();
        let found = violations.iter().find(|one| one["object"] == name.display().to_string()).unwrap();
        assert_eq!(found["rule"], json!(format!("`allow-unix` in `[network]`: {why}")));
    }
    let by: Vec<(String, String)> = done.connections().into_iter().map(|(to, _, _, by)| (to, by)).collect();
    assert!(by.contains(&(names[2].display().to_string(), "unreachable".to_owned())), "{by:?}");
}

#[test]
fn calls_of_a_server_reach_a_socket_and_have_it_in_their_record() {
    let world = World::new();
    let door = world.0.0.canonicalize().unwrap().join("door.sock");
    let at_door = echo(&door);
    let path = door.display().to_string();
    let setup = Setup {
        server: Some(crate::project().join("tests/it/session/kept.py")),
        filesystem: format!("[network]\nallow-unix = [\"{path}\"]"),
        ..Setup::default()
    };
    let book = session(&setup, |mut client| async move {
        client.start_call(1, "reach", json!({"host": path, "port": 0})).await;
        assert_eq!(text(&client.read().await), "hello");
        client.start_call(2, "reach", json!({"host": "/nowhere", "port": 0})).await;
        assert_eq!(text(&client.read().await), "EACCES");
        client
    });
    assert_eq!(at_door.load(Ordering::SeqCst), 1);
    let calls: Vec<&Value> =
        book.finished.iter().filter(|record| record["call"]["target"] == "reach").collect();
    let all: Vec<&Value> =
        calls.iter().flat_map(|record| record["traffic"]["connections"].as_array().unwrap()).collect();
    assert_eq!(all.len(), 1, "{calls:#?}");
    assert_eq!((&all[0]["up"], &all[0]["down"]), (&json!(5), &json!(5)));
}

/// One that lingers keeps whoever lets go of it last waiting, and the process that keeps doors is one for all cells.
#[test]
fn a_socket_that_lingers_holds_nobody_up_and_nobody_outside_is_got_hold_of() {
    let world = World::new();
    let place = world.0.0.canonicalize().unwrap();
    let door = place.join("door.sock");
    let _at_door = echo(&door);
    // It takes a connection, and reads nothing.
    let deaf = host(|stream| {
        thread::park();
        drop(stream);
    });
    let script = format!(
        "import os, struct, time
def attempt(way):
    try: return way()
    except OSError as error: return errno.errorcode[error.errno]
deaf = socket.create_connection(('127.0.0.1', {deaf})); deaf.setblocking(False)
try:
    while True: deaf.send(bytes(1 << 16))
except BlockingIOError: pass
print(attempt(lambda: deaf.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 30))))
s = socket.socket(socket.AF_UNIX)
SO_PASSPIDFD, SO_PEERPIDFD = 76, 77
print(attempt(lambda: s.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)))
print(attempt(lambda: s.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4)))
new = [int(part) for part in os.uname().release.split('.')[:2]] >= [6, 16]
print((attempt(lambda: socket.send_fds(s, [b'x'], [deaf.fileno()])) == 'EPERM') == new)
deaf.close(); s.connect({door:?})
began = time.monotonic()
for _ in range(3):
    s = socket.socket(socket.AF_UNIX); s.connect({door:?}); s.sendall(b'hello'); s.recv(5)
print(time.monotonic() - began < 20)",
        door = door.display().to_string(),
    );
    let network = format!("allow = [\"localhost:{deaf}\"]\nallow-unix = [\"{}\"]", door.display());
    let done = world.python(&network, &script);
    assert_eq!(done.stdout, "ENOPROTOOPT\nENOPROTOOPT\nENOPROTOOPT\nTrue\nTrue\n", "{done:#?}");
    let violations = done.report["violations"].as_array().unwrap();
    let refused = violations.iter().find(|one| one["operation"] == "setsockopt").unwrap();
    assert!(refused["rule"].as_str().unwrap().contains("one that lingers can hold up"), "{refused:#}");
}

/// Each that waits is a descriptor of the process that keeps doors, of which all cells have the same.
#[test]
fn connections_to_a_socket_wait_in_a_bounded_number_and_the_rest_is_hung_up() {
    let world = World::new();
    let door = world.0.0.canonicalize().unwrap().join("door.sock");
    let _at_door = echo(&door);
    let script = format!(
        "import select, time
def connect():
    s = socket.socket(socket.AF_UNIX); s.connect({door:?}); return s
first = connect(); first.sendall(b'hello'); print(first.recv(5))
all = [connect() for _ in range(40)]
def hung_up():
    poll = select.poll()
    for s in all: poll.register(s, 0)
    return len(poll.poll(0))
until = time.monotonic() + 20
while hung_up() < 8 and time.monotonic() < until: time.sleep(0.01)
print(hung_up())
first.close(); all[0].sendall(b'world'); print(all[0].recv(5))
ends = []
try:
    for _ in range(40): ends.append(socket.socket(socket.AF_UNIX))
except OSError as error: print(len(ends), errno.errorcode[error.errno])",
        door = door.display().to_string(),
    );
    let network = format!("allow-unix = [\"{}\"]\nconnections = 1", door.display());
    let done = world.python(&network, &script);
    assert_eq!(done.stdout, "b'hello'\n8\nb'world'\n32 ENFILE\n", "{done:#?}");
    done.has_refused("connect", "", "[network]\nconnections = 2");
    let violations = done.report["violations"].as_array().unwrap();
    let rule = "`connections` in `[network]`: 32 waited, and the next one was hung up";
    let hung_up = violations.iter().find(|one| one["rule"] == rule).unwrap_or_else(|| panic!("{done:#?}"));
    assert_eq!(hung_up["count"], 8);
    let crowded = violations.iter().find(|one| one["operation"] == "socket").unwrap();
    assert_eq!(crowded["rule"], json!("sockets of a cell that wait to be connected: 32 at once"));
}

/// Whoever may write to the directory of a socket can put another in its place.
#[test]
fn no_tool_of_a_server_may_write_where_the_socket_of_a_door_is() {
    let world = World::new();
    let place = world.0.0.canonicalize().unwrap();
    let file = |name: &str, text: String| std::fs::write(place.join(name), text).unwrap();
    for name in ["w", "profiles"] {
        std::fs::create_dir(place.join(name)).unwrap();
    }
    let (written, door) = (place.join("w").display().to_string(), place.join("w/door.sock"));
    let network = format!("allow-unix = [\"{}\"]", door.display());
    let pair = |write: &str, allow: &str| {
        format!(
            "error: `write = [\"{written}\"]` ({write}) would let a tool put another socket in the place of that of \
             `{network}` ({allow})\nhint: have the socket in a directory that no tool"
        )
    };
    let refused = world.exec(&network, &["--write", &written], &["/bin/true"]);
    assert_eq!(refused.code, 120, "{refused:#?}");
    assert!(refused.stderr.contains(&pair("`--write`", "profile `test`")), "{refused:#?}");
    let overlay = world.exec(&network, &["--write", &written, "--writes", "discard"], &["/bin/true"]);
    assert_eq!(overlay.code, 0, "{overlay:#?}");
    // What another tool of the server may write.
    let writes = format!("extends = \"default\"\n[filesystem]\nwrite = [\"{written}\"]");
    let tools = "[servers.s]\ncommand = [\"/bin/true\"]\nprofile = \"door\"\n[servers.s.tools.w]\nprofile = \"writes\"";
    file("toolcell.toml", tools.to_owned());
    let run = |network: &str, filesystem: &str| {
        file("profiles/door.toml", format!("extends = \"default\"\n[network]\n{network}"));
        file("profiles/writes.toml", format!("{writes}\n{filesystem}"));
        let mut toolcell = Command::new(crate::binary());
        toolcell.args(["run", "--floor", crate::cell::floor(), "--config"]).arg(place.join("toolcell.toml"));
        let done = toolcell.arg("--audit").arg(place.join("log")).stdin(Stdio::null()).output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, told) = run(&network, "");
    let pair = pair("profile `writes`", "profile `door`");
    assert!(code == Some(120) && told.contains(&pair), "{told}");
    for (network, filesystem) in
        [(network.as_str(), "writes = \"review\""), ("allow-unix = [\"/run/toolcell-none/s\"]", "")]
    {
        let (code, told) = run(network, filesystem);
        assert_eq!(code, Some(0), "{told}");
    }
}
