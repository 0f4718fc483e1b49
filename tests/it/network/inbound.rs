//! Doors into a cell: ports of it that this host reaches, from the loopback and from sockets with a path. Never: reaches the network.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::session::world::{Client, Scratch, Setup, session, session_in, text};
use super::world::{Executed, PYTHON, World, echo, host};

/// No test waits longer for a server to listen.
const BOUND: Duration = Duration::from_secs(30);
/// How often it is tried: each try is in the record.
const AGAIN: Duration = Duration::from_millis(50);

/// A port at which nobody listens now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What is said to whoever comes to these places, and what comes back; they may not listen yet.
fn ask<S: Read + Write>(connect: impl Fn() -> std::io::Result<S>, end: impl Fn(&S), says: &[u8]) -> Vec<u8> {
    let until = Instant::now() + BOUND;
    loop {
        let mut heard = Vec::new();
        let asked = connect().and_then(|mut stream| {
            stream.write_all(says)?;
            end(&stream);
            stream.read_to_end(&mut heard)
        });
        if asked.is_ok() && !heard.is_empty() {
            return heard;
        }
        assert!(Instant::now() < until, "nobody answers: {asked:?}");
        std::thread::park_timeout(AGAIN);
    }
}

fn ask_at(at: SocketAddr, says: &[u8]) -> Vec<u8> {
    ask(|| TcpStream::connect(at), |stream: &TcpStream| stream.shutdown(Shutdown::Write).unwrap_or(()), says)
}

fn ask_path(path: &Path, says: &[u8]) -> Vec<u8> {
    ask(
        || UnixStream::connect(path),
        |stream: &UnixStream| stream.shutdown(Shutdown::Write).unwrap_or(()),
        says,
    )
}

/// A command in a cell that runs, and the place at which its port is reached.
fn start(world: &World, network: &str, options: &[&str], script: &str) -> (Child, String) {
    let script = format!("import errno, socket, sys\n{script}");
    let mut command = world.command(network, options, &[&PYTHON[..], &[&script]].concat());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    let at = line.trim().rsplit_once(" is reached at ").unwrap_or_else(|| panic!("{line}")).1.to_owned();
    (child, at)
}

fn end(world: &World, child: Child) -> Executed {
    world.finished(&child.wait_with_output().unwrap())
}

/// Answers so many times what it was told, in capitals.
const LOUD: &str = "
def loud(there, times):
    for _ in range(times):
        stream, peer = there.accept()
        with stream: stream.sendall(stream.makefile('rb').read().upper())
";

/// What is held by Landlock alone where it cannot be told (`it::cell::layers`).
#[test]
fn a_port_at_which_no_program_may_listen_is_told_with_the_line_that_allows_it() {
    let world = World::new();
    let script = "
def bind(family, kind, *address):
    try: socket.socket(family, kind).bind(address); print('ok')
    except OSError as error: print(errno.errorcode[error.errno])
bind(socket.AF_INET, socket.SOCK_STREAM, '0.0.0.0', 8080)
bind(socket.AF_INET6, socket.SOCK_STREAM, '::', 8081)
bind(socket.AF_INET, socket.SOCK_STREAM, '127.0.0.1', 0)
bind(socket.AF_INET, socket.SOCK_DGRAM, '127.0.0.1', 8082)
import ctypes, os
address = b'\\x02\\0' + (8083).to_bytes(2, 'big') + bytes(12)
libc = ctypes.CDLL(None, use_errno=True)
libc.bind(os.open('/tmp/socket:[1] TCP', os.O_CREAT | os.O_RDWR), address, 16); print(errno.errorcode[ctypes.get_errno()])";
    let done = world.python("listen = [8081]", script);
    let udp = if crate::facts().landlock_abi < 10 { "ok" } else { "EACCES" };
    assert_eq!(done.stdout, format!("EACCES\nok\nEACCES\n{udp}\nENOTSOCK\n"), "{done:#?}");
    let told = done.report["violations"].as_array().unwrap();
    let told: Vec<_> =
        told.iter().map(|one| ["operation", "object", "errno", "allow"].map(|key| &one[key])).collect();
    let line = json!("[network]\nlisten = [8080]");
    let (bind, refused) = (json!("bind"), json!("EACCES"));
    // Whether there is IPv6 is found out at a port of the kernel's choice.
    assert_eq!(told, [[&bind, &json!("0.0.0.0:8080"), &refused, &line]], "{done:#?}");
}

#[test]
fn a_server_in_a_cell_is_reached_at_its_port_and_at_no_other() {
    let world = World::new();
    let script = "
import http.server
class Hello(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        body = ('hello from ' + self.client_address[0]).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers()
        self.wfile.write(body)
try: socket.create_server(('127.0.0.1', 8081))
except OSError as error: print(errno.errorcode[error.errno])
with http.server.HTTPServer(('', 8080), Hello) as server:
    for _ in range(2): server.handle_request()
";
    let (child, at) = start(&world, "listen = [8080]", &[], script);
    let at: SocketAddr = at.parse().unwrap();
    assert!(at.ip().is_loopback());
    let heard = ask_at(at, b"GET / HTTP/1.0\r\n\r\n");
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.starts_with("HTTP/1.0 200") && heard.ends_with("hello from 127.0.0.1"), "{heard}");
    // Its own port is the cell's, not the host's.
    assert!(TcpStream::connect("127.0.0.1:8080").is_err() || at.port() == 8080);
    let curl = Command::new("curl").args(["-s", "-S", &format!("http://{at}/")]).output();
    match curl {
        Ok(curl) => assert_eq!(String::from_utf8_lossy(&curl.stdout), "hello from 127.0.0.1", "{curl:?}"),
        Err(_) => drop(ask_at(at, b"GET / HTTP/1.0\r\n\r\n")),
    }
    let done = end(&world, child);
    assert_eq!(done.code, 0, "{done:#?}");
    if toolcell::sys::landlock::abi() >= 4 {
        assert_eq!(done.stdout, "EACCES\n", "{done:#?}");
    }
    assert!(TcpStream::connect(at).is_err(), "nothing is left of it");
    let led: Vec<_> = done.report["traffic"]["connections"].as_array().unwrap().iter().collect();
    let led = led.into_iter().filter(|one| one["closed_by"] != "unreachable").collect::<Vec<_>>();
    assert_eq!(led.len(), 2, "{done:#?}");
    for one in led {
        assert_eq!((&one["to"], &one["from"]), (&json!("port 8080"), &json!(at.to_string())));
        assert!(one["address"].as_str().unwrap().starts_with("127.0.0.1:"));
        assert!(one["up"].as_u64().unwrap() > 100 && one["down"].as_u64().unwrap() >= 18, "{one}");
    }
    assert_eq!(done.report["traffic"]["listens"], json!([{ "port": 8080, "at": at.to_string() }]));
    let seen = "doors: none out; into the cell: port 8080 from any port of 127.0.0.1";
    assert_eq!(done.report["receipt"]["layers"]["network"], json!(seen));
}

#[test]
fn a_socket_with_a_path_is_this_user_s_alone_and_goes_with_the_cell() {
    let world = World::new();
    let place = world.0.0.canonicalize().unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    let path = place.join("door.sock");
    let network = format!("listen = [{{ port = 8080, at = \"{}\" }}]", path.display());
    let script = format!("{LOUD}\nloud(socket.create_server(('127.0.0.1', 8080)), 1)");
    let (child, at) = start(&world, &network, &[], &script);
    assert_eq!(at, path.display().to_string());
    let made = fs::symlink_metadata(&path).unwrap();
    assert!(made.file_type().is_socket());
    assert_eq!(made.mode() & 0o777, 0o600);
    if made.uid() == 0 {
        let other = "import os, socket, sys
os.setgid(65534); os.setuid(65534)
try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError: print('refused')";
        let other = Command::new(PYTHON[0]).args(["-c", other]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&other.stdout), "refused\n", "{other:?}");
    } else {
        crate::cell::note("only root can try as another user");
    }
    // The place is taken as long as the cell is there.
    let second = World::new();
    let refused = second.exec(&network, &[], &["/bin/true"]);
    assert_ne!(refused.code, 0, "{refused:#?}");
    for part in
        ["step `listen-outside` failed on", "EADDRINUSE", "Leave `at` out of `listen`", "state = \"session\""]
    {
        assert!(refused.stderr.contains(part), "{part}: {refused:#?}");
    }
    assert_eq!(ask_path(&path, b"hello"), b"HELLO");
    let done = end(&world, child);
    assert_eq!(done.code, 0, "{done:#?}");
    assert!(fs::symlink_metadata(&path).is_err(), "it is gone with the cell");
    let led = done.report["traffic"]["connections"].as_array().unwrap();
    let led = led.iter().find(|one| one["closed_by"] != "unreachable").unwrap();
    let wanted = json!(["port 8080", path, Value::Null, 5, 5]);
    assert_eq!(json!([led["to"], led["from"], led["address"], led["up"], led["down"]]), wanted);
    // Another directory would be one in which somebody else could put a socket in its place.
    let open = place.join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let network = format!("listen = [{{ port = 8080, at = \"{}/x.sock\" }}]", open.display());
    let refused = second.exec(&network, &[], &["/bin/true"]);
    assert!(refused.stderr.contains("other users can put something in its place"), "{refused:#?}");
    assert!(refused.stderr.contains("hint: give the path of a socket in a directory that is this user's"));
}

#[test]
fn what_a_killed_command_left_is_taken_over() {
    let world = World::new();
    let path = world.0.0.canonicalize().unwrap().join("door.sock");
    let network = format!("listen = [{{ port = 8080, at = \"{}\" }}]", path.display());
    let (mut killed, _) = start(&world, &network, &[], "import time; time.sleep(60)");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(fs::symlink_metadata(&path).is_ok());
    // The processes that it had end behind it.
    while UnixStream::connect(&path).is_ok() {}
    let script = format!("{LOUD}\nloud(socket.create_server(('127.0.0.1', 8080)), 1)");
    let (child, _) = start(&world, &network, &[], &script);
    assert_eq!(ask_path(&path, b"again"), b"AGAIN");
    assert_eq!(end(&world, child).code, 0);
    assert!(fs::symlink_metadata(&path).is_err());
}

#[test]
fn an_option_opens_a_port_and_a_server_of_ipv6_alone_is_reached_too() {
    let world = World::new();
    let port = free_port();
    let option = format!("8080=127.0.0.1:{port}");
    let six = fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| !addresses.is_empty());
    let at = if six { "'::1', 8080), family=socket.AF_INET6" } else { "'127.0.0.1', 8080)" };
    let script = format!("{LOUD}\nloud(socket.create_server(({at}), 1)");
    let (child, at) = start(&world, "", &["--listen", &option], &script);
    assert_eq!(at, format!("127.0.0.1:{port}"));
    assert_eq!(ask_at(at.parse().unwrap(), b"hello"), b"HELLO");
    assert_eq!(end(&world, child).code, 0);
    let refused = world.exec("", &["--listen", "8080=0.0.0.0:9000"], &["/bin/true"]);
    assert!(refused.stderr.contains("`0.0.0.0:9000` is no address of the loopback"), "{refused:#?}");
    assert!(refused.stderr.contains("hint: write `127.0.0.1:9000`"), "{refused:#?}");
}

/// The sockets of the cell are used again, so that how many connections there are in all is not bounded, and how many at once is.
#[test]
fn so_many_come_at_once_and_as_many_as_like_one_after_the_other() {
    let world = World::new();
    let script = format!(
        "{LOUD}
there = socket.create_server(('127.0.0.1', 8080))
loud(there, 40)
first, second = there.accept()[0], there.accept()[0]
there.settimeout(1)
try: there.accept(); print('a third')
except TimeoutError: print('none')
first.sendall(b'go'); first.close(); there.settimeout(None)
third = there.accept()[0]
third.sendall(b'at last'); third.close(); second.close()
"
    );
    let (child, at) = start(&world, "listen = [8080]\nconnections = 2", &[], &script);
    let at: SocketAddr = at.parse().unwrap();
    let much = vec![b'x'; 1 << 20];
    for nth in 0..40 {
        let says = if nth % 10 == 0 { &much[..] } else { b"x" };
        assert_eq!(ask_at(at, says), says.to_ascii_uppercase());
    }
    let mut held: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
    let mut heard = String::new();
    held.remove(0).read_to_string(&mut heard).unwrap();
    held.remove(1).read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "goat last");
    let done = end(&world, child);
    assert_eq!((done.stdout.as_str(), done.code), ("none\n", 0), "{done:#?}");
    done.has_refused("connect", "", "[network]\nconnections = 4");
}

/// Those who come are taken one after the other, and the next one waits in the kernel.
#[test]
fn who_comes_into_a_cell_does_so_at_its_rate_and_stays_for_its_time() {
    let world = World::new();
    let script = format!("{LOUD}\nloud(socket.create_server(('127.0.0.1', 8080)), 4)");
    let (child, at) =
        start(&world, "listen = [{ port = 8080, rate = 3 }]\nrate = 1000\ntime = \"200ms\"", &[], &script);
    let at: SocketAddr = at.parse().unwrap();
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(ask_at(at, b"x"), b"X");
    }
    // Says nothing, and is hung up: the server has a turn for it.
    let mut silent = TcpStream::connect(at).unwrap();
    assert!(matches!(silent.read(&mut [0]), Ok(0) | Err(_)));
    // A third of a second until its turn, and then its time.
    assert!(began.elapsed() >= Duration::from_millis(500) && began.elapsed() < BOUND);
    let done = end(&world, child);
    done.has_refused("stay connected", "port 8080", "[network]\ntime = \"400ms\"");
    done.has_refused("connect", "port 8080", "[network]\nlisten = [{ port = 8080, rate = 6 }]");
}

#[test]
fn bytes_that_go_through_such_a_door_count_for_the_cell() {
    let world = World::new();
    let script = "
there = socket.create_server(('127.0.0.1', 8080))
stream = there.accept()[0]
try:
    while True: stream.sendall(bytes(65536))
except OSError as error: print(errno.errorcode[error.errno])
";
    let (child, at) = start(&world, "listen = [8080]\nup = \"1MiB\"", &[], script);
    let mut all = Vec::new();
    let until = Instant::now() + BOUND;
    while all.is_empty() && Instant::now() < until {
        let mut stream = TcpStream::connect(&at).unwrap();
        let _reset = stream.read_to_end(&mut all).is_err();
        std::thread::park_timeout(AGAIN);
    }
    let done = end(&world, child);
    assert!(all.len() <= 1 << 20 && done.code == 0, "{} {done:#?}", all.len());
    done.has_refused("transfer", "", "[network]\nup = \"2MiB\"");
    let limited = done.connections().into_iter().any(|(to, _, _, by)| (&*to, &*by) == ("port 8080", "limit"));
    assert!(limited, "{done:#?}");
}

/// What comes in by such a door leads nowhere else: neither to the host, nor back to who came, nor to the sockets of the porter's.
#[test]
fn a_cell_that_is_reached_reaches_nothing_by_it() {
    let world = World::new();
    let outside = host(echo);
    let script = format!(
        "
there = socket.create_server(('127.0.0.1', 8080))
stream, peer = there.accept()
reached = []
for address in [('127.0.0.1', {outside}), peer, ('127.0.0.1', peer[1])]:
    try: socket.create_connection(address, 2); reached.append(address)
    except OSError: pass
# A listener that takes the port of who came finds nobody either.
try: socket.create_server(peer); reached.append('bound')
except OSError: pass
print(reached)
stream.sendall(b'done'); stream.close()
"
    );
    let (child, at) = start(&world, "listen = [8080]", &[], &script);
    assert_eq!(ask_at(at.parse().unwrap(), b""), b"done");
    let done = end(&world, child);
    assert_eq!(done.code, 0, "{done:#?}");
    assert_eq!(done.stdout, "[]\n", "{done:#?}");
}

fn setup(network: &str) -> Setup {
    Setup {
        server: Some(crate::project().join("tests/it/session/kept.py")),
        filesystem: format!("[network]\n{network}"),
        ..Setup::default()
    }
}

/// The places that the person has been told of, when there are so many.
async fn places(said: &Path, count: usize) -> Vec<SocketAddr> {
    let until = Instant::now() + BOUND;
    loop {
        let told = fs::read_to_string(said).unwrap();
        let told = told.lines().filter_map(|line| line.split_once("is reached at ")?.1.trim().parse().ok());
        let told: Vec<SocketAddr> = told.collect();
        if told.len() == count {
            return told;
        }
        assert!(Instant::now() < until, "{told:?}");
        tokio::task::yield_now().await;
    }
}

/// Asks in a thread, because the client of a session waits meanwhile.
async fn heard(at: SocketAddr) -> Vec<u8> {
    tokio::task::spawn_blocking(move || ask_at(at, b"hello")).await.unwrap()
}

#[test]
fn each_call_has_the_place_in_turn_and_lists_do_not_take_it() {
    let port = free_port();
    let at: SocketAddr = ([127, 0, 0, 1], port).into();
    for options in [vec![], vec!["--spares".to_owned(), "1".to_owned()]] {
        let setup = Setup { options, ..setup(&format!("listen = [{{ port = 8080, at = \"{at}\" }}]")) };
        let book = session(&setup, |mut client| async move {
            let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
            client.request(1, "tools/list", json!({ "_meta": meta })).await;
            for id in 2..5 {
                client.start_call(id, "hear", json!({ "port": 8080 })).await;
                assert_eq!(heard(at).await, b"HELLO");
                assert_eq!(text(&client.read().await), "hello");
            }
            client
        });
        let calls: Vec<&Value> =
            book.finished.iter().filter(|record| record["call"]["target"] == "hear").collect();
        assert_eq!(calls.len(), 3);
        for record in calls {
            assert_eq!(record["traffic"]["listens"], json!([{ "port": 8080, "at": at.to_string() }]));
            let led = record["traffic"]["connections"].as_array().unwrap();
            // Who asks for the next call while this cell ends has a connection that carries nothing.
            let nothing = |one: &Value| one["closed_by"] == "end" && one["up"] == 0 && one["down"] == 0;
            let led = led.iter().filter(|one| one["closed_by"] != "unreachable" && !nothing(one));
            let led: Vec<_> = led.collect();
            assert_eq!((led.len(), &led[0]["up"], &led[0]["down"]), (1, &json!(5), &json!(5)), "{record:#}");
            assert_eq!(record["receipt"]["cell"], "on-demand");
        }
    }
    assert!(TcpStream::connect(at).is_err());
}

#[test]
fn a_second_call_at_once_is_refused_the_place_and_has_one_of_its_own_where_the_kernel_chooses() {
    let port = free_port();
    let at: SocketAddr = ([127, 0, 0, 1], port).into();
    let fixed = setup(&format!("listen = [{{ port = 8080, at = \"{at}\" }}]"));
    let scratch = Scratch::new();
    let said = scratch.0.join("stderr");
    let book = session_in(&scratch, &fixed, |mut client| async move {
        client.start_call(1, "hear", json!({ "port": 8080 })).await;
        places(&said, 1).await;
        let refused = client.call(2, "count").await;
        let told = refused["error"]["message"].as_str().unwrap_or_else(|| panic!("{refused}"));
        assert!(told.contains("EADDRINUSE") && told.contains("Leave `at` out of `listen`"), "{told}");
        assert_eq!(heard(at).await, b"HELLO");
        assert_eq!(text(&client.read().await), "hello");
        client
    });
    assert!(book.finished.iter().any(|record| record["status"]["kind"] == "refused"));
    let scratch = Scratch::new();
    let said = scratch.0.join("stderr");
    let book = session_in(&scratch, &setup("listen = [8080]"), |mut client| async move {
        client.start_call(1, "hear", json!({ "port": 8080 })).await;
        client.start_call(2, "hear", json!({ "port": 8080 })).await;
        for at in places(&said, 2).await {
            assert_eq!(heard(at).await, b"HELLO");
            assert_eq!(text(&client.read().await), "hello");
        }
        client
    });
    let places = book.finished.iter().filter_map(|record| record["traffic"]["listens"][0]["at"].as_str());
    let places: std::collections::BTreeSet<&str> = places.collect();
    assert_eq!(places.len(), 2, "{:#?}", book.finished);
}

#[test]
fn the_cell_of_a_session_keeps_its_place_for_all_of_its_calls() {
    let path = World::new();
    let place = path.0.0.canonicalize().unwrap().join("door.sock");
    let network = format!("listen = [{{ port = 8080, at = \"{}\" }}]", place.display());
    let setup = Setup { config: "state = \"session\"\n".to_owned(), ..setup(&network) };
    let there = place.clone();
    session(&setup, |mut client: Client| async move {
        for id in 1..4 {
            client.start_call(id, "hear", json!({ "port": 8080 })).await;
            let at = there.clone();
            let heard = tokio::task::spawn_blocking(move || ask_path(&at, b"hello")).await.unwrap();
            assert_eq!((heard.as_slice(), text(&client.read().await)), (&b"HELLO"[..], "hello"));
        }
        // Whatever kills the supervisor.
        client.kill();
        client
    });
    let until = Instant::now() + BOUND;
    while fs::symlink_metadata(&place).is_ok() {
        assert!(Instant::now() < until, "the socket is left");
    }
}
