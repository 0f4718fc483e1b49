//! Cells in the host's network: what they reach, what stays out of reach there, and who is not let into it. Never: reaches the network.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use toolcell::sys::identity;

use super::super::session::world::{Scratch, Setup, command, session_in, text};
use super::world::{Executed, PYTHON, World, counting, echo, host, name_of_this_host};

/// The floor by which such cells are accepted here.
fn floor() -> String {
    match crate::cell::floor() {
        "full" => "host-network".to_owned(),
        other => format!("host-network-{other}"),
    }
}

/// Does Landlock's scope not hold what only it can hold there? Then such a profile is refused, which one of the tests sees.
fn is_old() -> bool {
    let old = crate::facts().landlock_abi < 6;
    if old {
        crate::cell::note("Landlock's ABI is below 6");
    }
    old
}

fn needs_root() -> bool {
    let root = identity::effective().0 == 0;
    if !root {
        crate::cell::note("only root becomes another user, or mounts something elsewhere");
    }
    !root
}

/// A profile in the host's network, with these lines more.
fn profile(world: &World, more: &str) -> String {
    let path = world.0.0.join("outside.toml");
    let lines = format!("extends = \"default\"\nfloor = \"{}\"\n[network]\nmode = \"host\"\n{more}", floor());
    fs::write(&path, lines).unwrap();
    path.to_str().unwrap().to_owned()
}

fn exec(world: &World, options: &[&str], script: &str) -> Command {
    let report = world.0.0.join("report");
    drop(fs::remove_file(&report));
    let mut toolcell = Command::new(crate::binary());
    toolcell.args(["exec", "--report"]).arg(&report).args(options).arg("--").args(PYTHON);
    toolcell.arg(format!("import errno, os, socket, sys\n{script}")).current_dir(&world.0.0);
    toolcell.stdin(Stdio::null());
    toolcell
}

fn python(world: &World, more: &str, options: &[&str], script: &str) -> Executed {
    let profile = profile(world, more);
    let mut toolcell = exec(world, &[&["--profile", &profile], options].concat(), script);
    world.finished(&toolcell.output().unwrap())
}

/// Says how each of these sockets fails, or that it is there.
const FAMILIES: &str = "
def tried(*kind):
    try:
        socket.socket(*kind).close()
        return 'ok'
    except OSError as error:
        return errno.errorcode[error.errno]
print(*(tried(*kind) for kind in [(1, 1), (1, 2), (16, 3, 0), (17, 3), (40, 1), (2, 3, 1), (2, 2, 1), (2, 1, 262), (38, 5), (2, 1), (2, 2)]))
";

#[test]
fn a_program_there_reaches_what_its_user_reaches_and_the_receipt_says_so() {
    if is_old() {
        return;
    }
    let world = World::new();
    let port = host(counting);
    let script = format!(
        "there = socket.create_connection(('127.0.0.1', {port}))\nthere.sendall(b'hello')\n\
         there.shutdown(1)\nprint(there.makefile().read())\n\
         own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nown.bind(('127.0.0.1', 0))\n\
         own.sendto(b'self', own.getsockname())\nprint(own.recv(9).decode())"
    );
    let done = python(&world, "", &[], &script);
    assert_eq!((done.code, done.stdout.as_str()), (0, "5 bytes\nself\n"), "{done:?}");
    let receipt = &done.report["receipt"];
    assert_eq!(receipt["floor"], floor());
    assert_eq!(receipt["layers"]["network"], "the host's: all that its user reaches");
    assert_eq!(receipt["layers"]["namespaces"], "user, mnt, pid, ipc, uts, time; pid 1");
    let landlock = receipt["layers"]["landlock"].as_str().unwrap();
    assert!(landlock.ends_with("; refused: files, abstract sockets"), "{landlock}");
    assert_eq!(receipt["coverage"]["network"], "blind");
    // Nothing of it was refused, and nothing of it is told.
    assert_eq!((&done.report["violations"], &done.report["traffic"]), (&json!([]), &Value::Null));
}

#[test]
fn a_program_there_listens_for_the_host() {
    if is_old() {
        return;
    }
    let world = World::new();
    let script = "own = socket.create_server(('127.0.0.1', 0))\nprint(own.getsockname()[1], flush=True)\n\
                  who, _ = own.accept()\nwho.sendall(b'here')";
    let profile = profile(&world, "");
    let mut toolcell = exec(&world, &["--profile", &profile], script).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(toolcell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut said = String::new();
    let port: u16 = line.trim().parse().unwrap();
    TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((said.as_str(), toolcell.wait().unwrap().code()), ("here", Some(0)));
    // With the cell its port is free again.
    drop(TcpListener::bind(("127.0.0.1", port)).unwrap());
}

#[test]
fn names_lead_there_where_they_lead_outside() {
    if is_old() {
        return;
    }
    let world = World::new();
    for path in toolcell::policy::mode::NAMES {
        let script = format!(
            "path = {path:?}\nsys.stdout.write(open(path).read() if os.path.exists(path) else 'none')\n\
             try:\n    open(path, 'a')\nexcept OSError as error:\n    sys.stderr.write(errno.errorcode[error.errno])"
        );
        let done = python(&world, "", &[], &script);
        let outside = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert_eq!(done.stdout, outside.unwrap_or_else(|_missing| "none".to_owned()), "{path}: {done:?}");
        assert!(done.stderr.contains("EROFS") || done.stderr.contains("EACCES"), "{path}: {done:?}");
    }
    let Some(name) = name_of_this_host() else { return };
    let port = host(echo);
    let script = format!("socket.create_connection(({name:?}, {port})).close()\nprint('connected')");
    let done = python(&world, "", &[], &script);
    assert_eq!((done.code, done.stdout.as_str()), (0, "connected\n"), "{done:?}");
    // Who denies them has none.
    let script = "print(os.path.exists('/etc/hosts'), os.path.exists('/etc/resolv.conf'))";
    let done = python(&world, "[filesystem]\ndeny = [\"/etc/hosts\"]\n", &[], script);
    let resolver = if fs::metadata("/etc/resolv.conf").is_ok() { "True" } else { "False" };
    assert_eq!(done.stdout, format!("False {resolver}\n"), "{done:?}");
}

/// `/etc/resolv.conf` is a link of systemd-resolved's on many hosts, and some have no `nsswitch.conf`.
#[test]
fn what_is_a_link_is_shown_as_what_it_leads_to_and_what_is_missing_is_not_made_up() {
    if is_old() || needs_root() {
        return;
    }
    let world = World::new();
    let etc = world.0.0.join("etc");
    fs::create_dir_all(world.0.0.join("run/resolve")).unwrap();
    fs::create_dir(&etc).unwrap();
    fs::write(world.0.0.join("run/resolve/stub.conf"), "nameserver 192.0.2.53\n").unwrap();
    std::os::unix::fs::symlink(world.0.0.join("run/resolve/stub.conf"), etc.join("resolv.conf")).unwrap();
    fs::write(etc.join("hosts"), "127.0.0.9 made.internal\n").unwrap();
    drop(fs::copy("/etc/ld.so.cache", etc.join("ld.so.cache")));
    let script = "print(open('/etc/resolv.conf').read().strip(), os.path.islink('/etc/resolv.conf'), \
                  os.path.exists('/etc/nsswitch.conf'), socket.gethostbyname('made.internal'), \
                  'cell' in open('/etc/passwd').read())";
    let profile = profile(&world, "");
    let toolcell = exec(&world, &["--profile", &profile], script);
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--mount", "--propagation", "private", "sh", "-c"]);
    elsewhere.args(["mount --bind etc /etc && exec \"$@\"", "sh"]);
    elsewhere.arg(toolcell.get_program()).args(toolcell.get_args()).current_dir(&world.0.0);
    let done = world.finished(&elsewhere.stdin(Stdio::null()).output().unwrap());
    assert_eq!(done.stdout, "nameserver 192.0.2.53 False False 127.0.0.9 True\n", "{done:?}");
}

/// What root's cells are, an ordinary user's are too.
#[test]
fn an_ordinary_user_has_it_too() {
    if is_old() || needs_root() {
        return;
    }
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    if !Command::new("setpriv").args(user).args(["unshare", "--user", "true"]).status().unwrap().success() {
        crate::cell::note("an ordinary user can make no namespaces here");
        return;
    }
    let world = World::new();
    std::os::unix::fs::chown(&world.0.0, Some(65_534), None).unwrap();
    let name = format!("toolcell-it-user-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let profile = profile(&world, "[syscalls]\nallow = [\"socket\"]\n");
    let script = format!(
        "socket.create_connection(('127.0.0.1', {})).close()\ntry:\n    \
         socket.socket(socket.AF_UNIX).connect('\\0{name}')\nexcept OSError as error:\n    print(errno.errorcode[error.errno])",
        host(echo)
    );
    let toolcell = exec(&world, &["--profile", &profile, "--floor", "host-network-no-cgroup"], &script);
    let mut command = Command::new("setpriv");
    command.args(user).arg(toolcell.get_program()).args(toolcell.get_args()).current_dir(&world.0.0);
    let done = world.finished(&command.env("HOME", "/").stdin(Stdio::null()).output().unwrap());
    assert_eq!((done.code, done.stdout.as_str()), (0, "EPERM\n"), "{done:?}");
    assert_eq!(done.report["receipt"]["layers"]["network"], "the host's: all that its user reaches");
}

#[test]
fn no_other_family_is_there_and_behind_the_filter_stands_landlock() {
    if is_old() {
        return;
    }
    let world = World::new();
    let done = python(&world, "", &[], FAMILIES);
    let refused = "EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT EAFNOSUPPORT ESOCKTNOSUPPORT \
                   EPROTONOSUPPORT EPROTONOSUPPORT EAFNOSUPPORT ok ok\n";
    assert_eq!(done.stdout, refused, "{done:?}");
    let name = format!("toolcell-it-outside-{}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let path = world.0.0.join("path.sock");
    let _path = UnixListener::bind(&path).unwrap();
    let script = format!(
        "for at in ('\\0{name}', {path:?}):\n    try:\n        socket.socket(socket.AF_UNIX).connect(at)\n        print('ok')\n    \
         except OSError as error:\n        print(errno.errorcode[error.errno])"
    );
    let done = python(&world, "", &[], &script);
    assert_eq!(done.stdout, "EAFNOSUPPORT\nEAFNOSUPPORT\n", "{done:?}");
    // A profile that lets the filter pass them has the scope and the private root left.
    let done = python(&world, "[syscalls]\nallow = [\"socket\"]\n", &[], &script);
    assert_eq!(done.stdout, "EPERM\nENOENT\n", "{done:?}");
    let mut free = Command::new(PYTHON[0]);
    let free = free.args(&PYTHON[1..]).arg(format!("import errno, socket\n{script}")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&free.stdout), "ok\nok\n");
}

#[test]
fn it_is_there_only_for_who_spells_it_out_and_accepts_it() {
    let world = World::new();
    let path = profile(&world, "");
    let run = |options: &[&str]| {
        let done = exec(&world, options, "print('ran')").output().unwrap();
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code().unwrap(), words)
    };
    let typed = |floor: &str| run(&["--profile", &path, "--floor", floor]);
    for (wanted, accepted) in [
        ("full", "host-network"),
        ("no-cgroup", "host-network-no-cgroup"),
        ("landlock", "host-network-landlock"),
    ] {
        let (code, said) = typed(wanted);
        assert_eq!(code, 121, "{said}");
        let told = format!("the profile's network is the host's, and its floor `{wanted}` asks for one");
        let line = format!("hint: to accept that, write `floor = \"{accepted}\"` at the top of the profile");
        assert!(said.contains(&told) && said.contains(&line), "{said}");
    }
    fs::write(&path, "extends = \"default\"\nfloor = \"full\"\n[network]\nmode = \"host\"\n").unwrap();
    let asked = ["profile", "why", &path, "--connect", "127.0.0.1:80"];
    let why = Command::new(crate::binary()).args(asked).output().unwrap();
    let said = String::from_utf8_lossy(&why.stdout);
    assert!(said.starts_with("refused: connect") && said.contains("floor = \"host-network\""), "{said}");
    let path = profile(&world, "");
    if crate::facts().landlock_abi < 6 {
        let (code, said) = typed(&floor());
        assert_eq!(code, 121, "{said}");
        assert!(said.contains("in the host's network, Landlock's ABI must be 6 or newer"), "{said}");
        return;
    }
    assert_eq!(typed(&floor()).0, 0);
    for (option, value) in [("--net", "a.example:443"), ("--listen", "8080")] {
        let (code, said) = run(&["--profile", &path, option, value]);
        assert_ne!(code, 0);
        assert!(said.contains(&format!("`{option}` opens a door, and the network of profile")), "{said}");
    }
    // A floor alone opens nothing.
    let port = host(echo);
    let script = format!("socket.create_connection(('127.0.0.1', {port}))");
    let done = exec(&world, &["--floor", &floor()], &script).output().unwrap();
    let done = world.finished(&done);
    assert!(done.code == 1 && done.stderr.contains("ConnectionRefusedError"), "{done:?}");
    assert_eq!(done.report["receipt"]["floor"], crate::cell::floor());
}

/// The answers of the commands that speak of a profile.
#[test]
fn every_word_about_such_a_profile_says_what_is_given_away() {
    if is_old() {
        return;
    }
    let world = World::new();
    let path = profile(&world, "");
    let toolcell = |arguments: &[&str]| {
        let done = Command::new(crate::binary()).args(arguments).current_dir(&world.0.0).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.code().unwrap(), said)
    };
    let checked = toolcell(&["profile", "check", &path]);
    assert!(
        checked.0 == 0 && checked.1.contains("warning: `mode = \"host\"`: a tool reaches all"),
        "{checked:?}"
    );
    for arguments in [&["profile", "explain", &path][..], &["profile", "explain", "--lost", &path]] {
        let (code, said) = toolcell(arguments);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(code, 0, "{said}");
        for part in ["the profile has `mode = \"host\"`", "a cloud's metadata service", "netlink is refused"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(said.contains(&format!("`{}`", floor())), "{said}");
    }
    let report: Value = serde_json::from_str(&toolcell(&["doctor", "--json"]).1).unwrap();
    let column = if identity::effective().0 == 0 { "root" } else { "user" };
    assert_eq!(report[column]["host_network"], floor());
    let port = host(echo).to_string();
    let at = format!("127.0.0.1:{port}");
    let (code, said) = toolcell(&["profile", "why", &path, "--connect", &at, "--prove"]);
    let told =
        ["allowed: connect", "by     `mode = \"host\"` in `[network]`", "tried in a cell: it succeeded"];
    assert!(code == 0 && told.iter().all(|part| said.contains(part)), "{said}");
    // Nobody is there, and the profile is not the reason.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, said) = toolcell(&["profile", "why", &path, "--connect", &closed, "--prove"]);
    assert!(code == 0 && said.contains("tried in a cell: "), "{said}");
    let (code, said) = toolcell(&["selftest", "--profile", &path]);
    assert!(
        code != 0 && said.contains("attacks over the host's network are allowed by its `mode = \"host\"`"),
        "{said}"
    );
}

/// One in the host's network says nothing of another of the same server, at the same time.
#[test]
fn of_two_tools_of_a_server_one_is_outside_and_the_other_is_not() {
    if is_old() {
        return;
    }
    let port = host(counting);
    let kept = crate::project().join("tests/it/session/kept.py");
    for (spares, session) in [("0", false), ("1", false), ("0", true)] {
        let scratch = Scratch::outside_of_scratch();
        fs::write(scratch.0.join("outside.toml"), "extends = \"default\"\n[network]\nmode = \"host\"\n")
            .unwrap();
        let inside = "[servers.fixture.tools.peek]\nprofile = \"default\"\nstate = \"call\"\n";
        let (config, filesystem) = match session {
            true => (format!("state = \"session\"\n{inside}"), "[network]\nmode = \"host\"\n".to_owned()),
            false => ("[servers.fixture.tools.reach]\nprofile = \"outside\"\n".to_owned(), String::new()),
        };
        let options = ["--spares", spares, "--floor", &floor()].map(str::to_owned).to_vec();
        let setup = Setup { server: Some(kept.clone()), config, filesystem, options, ..Setup::default() };
        let book = session_in(&scratch, &setup, |mut client| async move {
            for round in 0..2 {
                let there = json!({"host": "127.0.0.1", "port": port});
                for (id, tool) in (2 * round..).zip(["reach", "peek"]) {
                    client.start_call(id, tool, there.clone()).await;
                }
                let mut answers = Vec::new();
                for _ in 0..2 {
                    let answer = client.read().await;
                    answers.push((answer["id"].as_u64().unwrap() % 2, text(&answer).to_owned()));
                }
                answers.sort();
                let said: Vec<&str> = answers.iter().map(|(_, said)| said.as_str()).collect();
                assert_eq!(said, ["5 bytes", "ECONNREFUSED"]);
            }
            client
        });
        let rungs = |tool: &str| -> Vec<Value> {
            let of = book.finished.iter().filter(|record| record["call"]["target"] == tool);
            of.map(|record| record["receipt"]["floor"].clone()).collect()
        };
        assert_eq!(rungs("reach"), [json!(floor()), json!(floor())], "{book:#?}");
        assert_eq!(rungs("peek"), [json!(crate::cell::floor()), json!(crate::cell::floor())]);
    }
}

/// Neither the arguments of a call nor what becomes of a tool that was refused too much leads there.
#[test]
fn nothing_but_a_profile_of_the_tools_own_leads_there() {
    let connect = "[servers.fixture.tools.reach]\nprofile = \"outside\"\n\
                   grants = [{ argument = \"/url\", access = \"connect\", within = [\"a.example:443\"] }]\n";
    let tried = "[quarantine]\nviolations = 1\nrefuse = \"1s\"\nprofile = \"outside\"\n";
    for (config, told) in [
        (
            connect,
            "`grants` of tool `reach` open doors, and profile `outside` has none: it has `mode = \"host\"`",
        ),
        (tried, "that are tried would have more than before"),
    ] {
        let scratch = Scratch::outside_of_scratch();
        fs::write(scratch.0.join("outside.toml"), "extends = \"default\"\n[network]\nmode = \"host\"\n")
            .unwrap();
        let options = ["--floor", &floor()].map(str::to_owned).to_vec();
        let setup = Setup { config: config.to_owned(), options, ..Setup::default() };
        let (code, _, said) = command(&setup, &scratch, "run", &["fixture"]);
        assert!(code != 0 && said.contains(told), "{code}: {said}");
    }
}
