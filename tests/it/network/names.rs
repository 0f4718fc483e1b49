//! Where names lead, by a name server of the test's own, which only the host sees. Never: changes the host's configuration: its
//! place is taken in a mount namespace.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use toolcell::network::dns::{self, Answer};

use super::world::{Executed, PYTHON, World, echo, host};
use crate::cell::needs_root;

/// Names of which an address was asked for.
static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Another name that one stands for.
fn stands_for(name: &str) -> Option<&'static str> {
    match name {
        "alias.test" => Some("own.test"),
        "alias-private.test" => Some("private.test"),
        _ => None,
    }
}

/// An answer that says so (`CNAME`), with the address of that one.
fn alias(question: &[u8], meant: &str) -> Vec<u8> {
    const KIND_CNAME: [u8; 4] = [0, 5, 0, 1];
    const KIND_A: [u8; 4] = [0, 1, 0, 1];
    const SECONDS: [u8; 4] = [0, 0, 0, 60];
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let mut name: Vec<u8> =
        meant.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    name.push(0);
    let mut answer = [&question[..2], &[0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0], &question[12..end]].concat();
    answer.extend([&[0xc0, 12], &KIND_CNAME[..], &SECONDS, &[0, name.len() as u8], &name].concat());
    answer.extend([&name[..], &KIND_A, &SECONDS, &[0, 4], &addresses(meant)[0]].concat());
    answer
}

/// The addresses of IPv4 of a name.
fn addresses(name: &str) -> &'static [[u8; 4]] {
    match name {
        "metadata.test" => &[[169, 254, 169, 254]],
        "private.test" => &[[10, 0, 0, 5]],
        "own.test" => &[[127, 0, 0, 1]],
        // One who owns a name can mix.
        "mixed.test" => &[[169, 254, 169, 254], [127, 0, 0, 1], [10, 0, 0, 5]],
        // And answer otherwise the next time.
        "turning.test" => match ASKED.lock().unwrap().iter().filter(|asked| *asked == "turning.test").count()
        {
            0 | 1 => &[[127, 0, 0, 1]],
            _ => &[[10, 0, 0, 5]],
        },
        _ => &[],
    }
}

fn name_server(address: &str) {
    let socket = UdpSocket::bind((address, 53)).unwrap();
    thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut message) {
            let Some(asked) = dns::question(&message[..count]) else { continue };
            let four = asked.kind == 1;
            if four {
                ASKED.lock().unwrap().push(asked.name.clone());
            }
            let found: Vec<std::net::IpAddr> =
                addresses(&asked.name).iter().map(|four| (*four).into()).collect();
            let answer = match stands_for(&asked.name).filter(|_| four) {
                Some(meant) => alias(&message[..count], meant),
                None if found.is_empty() => asked.answer(Answer::NoName),
                None => asked.answer(Answer::Addresses(&found)),
            };
            let _gone = socket.send_to(&answer, from).is_err();
        }
    });
}

#[test]
fn a_name_is_resolved_once_and_leads_to_nothing_that_is_not_granted() {
    if needs_root("a name server, and a place for its address in a mount namespace") {
        return;
    }
    let world = World::new();
    // Another one in each process.
    let number = std::process::id();
    let server = format!("127.71.{}.{}", number >> 8 & 0xff, number & 0xff);
    name_server(&server);
    let resolv = world.0.0.join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {server}\n")).unwrap();
    let port = host(echo);
    let names = ["metadata", "private", "own", "mixed", "turning", "alias", "alias-private"];
    let script = format!(
        "import errno, socket
for name in {names:?}:
    try:
        s = socket.create_connection((name + '.test', {port}), timeout=20); s.sendall(b'hello')
        print(name, s.recv(5).decode() or 'closed')
    except OSError as error: print(name, errno.errorcode.get(error.errno, str(error)))"
    );
    let run = |more: &str| {
        let allow: Vec<String> = names.iter().map(|name| format!("\"{name}.test:{port}\"")).collect();
        let network = format!("allow = [{}]\n{more}", allow.join(", "));
        let exec = world.command(&network, &[], &[&PYTHON[..], &[script.as_str()]].concat());
        let mut alone = Command::new("unshare");
        alone.args(["--mount", "--propagation", "private", "sh", "-c"]);
        alone.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"").arg(&resolv);
        alone.arg(exec.get_program()).args(exec.get_args()).current_dir(&world.0.0);
        world.finished(&alone.stdin(Stdio::null()).output().unwrap())
    };
    let closed = run("");
    let reset: String = names.map(|name| format!("{name} ECONNRESET\n")).concat();
    assert_eq!(closed.stdout, reset, "{closed:#?}");
    let object = |name: &str, address: &str| format!("{name}.test:{port} at {address}");
    let pin = |name: &str, address: &str| format!("[network]\nhosts = {{ \"{name}.test\" = \"{address}\" }}");
    closed.has_refused("connect", &object("metadata", "169.254.169.254"), "");
    closed.has_refused("connect", &object("private", "10.0.0.5"), &pin("private", "10.0.0.5"));
    closed.has_refused("connect", &object("own", "127.0.0.1"), &pin("own", "127.0.0.1"));
    closed.has_refused("connect", &object("alias", "127.0.0.1"), &pin("alias", "127.0.0.1"));
    closed.has_refused("connect", &object("alias-private", "10.0.0.5"), &pin("alias-private", "10.0.0.5"));

    ASKED.lock().unwrap().clear();
    let open = run("private = [\"127.0.0.0/8\"]");
    let wanted = "metadata ECONNRESET\nprivate ECONNRESET\nown hello\nmixed hello\nturning hello\nalias hello\nalias-private ECONNRESET\n";
    assert_eq!(open.stdout, wanted, "{open:#?}");
    let mut asked = ASKED.lock().unwrap().clone();
    asked.sort();
    asked.dedup();
    let all = ASKED.lock().unwrap().len();
    assert_eq!((asked.len(), all), (7, 7), "each once: {:?}", ASKED.lock().unwrap());
}

/// A host of the test's own: a network namespace with an address of the open network on its loopback, which leads nowhere else, and a
/// program behind it that says everything again.
fn elsewhere(world: &World, prepare: &str, port: u16, network: &str, script: &str) -> Executed {
    let hosts = world.0.0.join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n1.2.3.4 public.test\n169.254.169.254 metadata.test\n")
        .unwrap();
    let echo = format!(
        "import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(4096): self.request.sendall(data)
        except OSError: pass
socketserver.ThreadingTCPServer(('0.0.0.0', {port}), Echo).serve_forever()"
    );
    let exec = world.command(network, &[], &[&PYTHON[..], &[script]].concat());
    let mut alone = Command::new("unshare");
    alone.args(["--mount", "--net", "--propagation", "private", "sh", "-c"]);
    alone.arg(format!(
        "set -e; {prepare}; ip link set lo up; ip address add 1.2.3.4/32 dev lo; mount --bind \"$0\" /etc/hosts
        \"$1\" -c \"$2\" & shift 2
        until ss -tln | grep -q :{port}; do :; done
        \"$@\" || code=$?; kill $!; exit ${{code:-0}}"
    ));
    alone.arg(&hosts).args(["/usr/bin/python3", &echo]);
    alone.arg(exec.get_program()).args(exec.get_args()).current_dir(&world.0.0);
    world.finished(&alone.stdin(Stdio::null()).output().unwrap())
}

const REACH: &str = "import errno, socket, sys
for name, port in [%]:
    try:
        s = socket.create_connection((name, port), timeout=20); s.sendall(b'hello')
        print(name, s.recv(5).decode() or 'closed')
    except OSError as error: print(name, errno.errorcode.get(error.errno, str(error)))
print(open('/etc/hosts').read().count('fd74:'))";

/// What becomes of a connection to this name there, where the network section allows it.
fn reached_elsewhere(world: &World, prepare: &str, name: &str, more: &str) -> Executed {
    const PORT: u16 = 4000;
    let script = REACH.replace('%', &format!("('{name}', {PORT})"));
    elsewhere(world, prepare, PORT, &format!("allow = [\"{name}:{PORT}\"]\n{more}"), &script)
}

#[test]
fn a_name_that_leads_to_an_open_address_of_this_hosts_own_is_refused() {
    if needs_root("a network namespace with an address of its own") {
        return;
    }
    let world = World::new();
    let refused = reached_elsewhere(&world, ":", "public.test", "");
    assert!(refused.stdout.starts_with("public.test ECONNRESET\n"), "{refused:#?}");
    let pin = "hosts = { \"public.test\" = \"1.2.3.4\" }";
    refused.has_refused("connect", "public.test:4000 at 1.2.3.4", &format!("[network]\n{pin}"));
    let granted = reached_elsewhere(&world, ":", "public.test", pin);
    assert!(granted.stdout.starts_with("public.test hello\n"), "{granted:#?}");
}

/// Where clouds tell a machine's secrets is a range like others for who spells it, and nothing offers the line.
#[test]
fn metadata_is_reached_by_who_grants_its_range_alone() {
    if needs_root("a network namespace with an address of its own") {
        return;
    }
    let world = World::new();
    let put = "ip address add 169.254.169.254/32 dev lo";
    for private in ["", "private = [\"10.0.0.0/8\", \"127.0.0.0/8\"]"] {
        let refused = reached_elsewhere(&world, put, "metadata.test", private);
        assert!(refused.stdout.starts_with("metadata.test ECONNRESET\n"), "{refused:#?}");
        refused.has_refused("connect", "metadata.test:4000 at 169.254.169.254", "");
    }
    let granted = reached_elsewhere(&world, put, "metadata.test", "private = [\"169.254.0.0/16\"]");
    assert!(granted.stdout.starts_with("metadata.test hello\n"), "{granted:#?}");
    assert!(granted.refused().is_empty(), "{granted:#?}");
}

#[test]
fn on_a_host_without_ipv6_doors_have_addresses_of_ipv4() {
    if needs_root("a network namespace without IPv6") {
        return;
    }
    let world = World::new();
    let port = 4000;
    let script = REACH.replace('%', &format!("('here.test', {port}), ('localhost', {port})"));
    let allow = format!(
        "allow = [\"here.test:{port}\", \"localhost:{port}\"]\nhosts = {{ \"here.test\" = \"127.0.0.1\" }}"
    );
    let off = "for each in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > \"$each\"; done";
    let without = elsewhere(&world, off, port, &allow, &script);
    assert_eq!(without.stdout, "here.test hello\nlocalhost hello\n0\n", "{without:#?}");
    let address = elsewhere(&world, off, port, "allow = [\"[2001:db8::1]:443\"]", &script);
    assert!(address.code != 0 && address.stderr.contains("this host has no IPv6"), "{address:#?}");
    let with = elsewhere(&world, ":", port, &allow, &script);
    assert_eq!(with.stdout, "here.test hello\nlocalhost hello\n1\n", "{with:#?}");
}
