//! Programs as they are, which know nothing of doors. Never: sets a variable of a proxy.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use super::tls::{door_to, file, speaks};
use super::world::{PYTHON, World, counting, echo, has_six, host, host_at};
use crate::cell::note;

/// Serves the files of a directory.
fn files(directory: PathBuf) -> u16 {
    host_at("127.0.0.1:0".parse().unwrap(), move |stream| serve_file(stream, &directory)).unwrap().port()
}

/// Answers one request for a file.
fn serve_file(stream: impl Read + Write, directory: &Path) {
    let mut stream = BufReader::new(stream);
    let mut lines = (&mut stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path = first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap().trim_start_matches('/');
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let found = Some(directory.join(path)).filter(|_| plain).and_then(|path| fs::read(path).ok());
    let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _gone = stream.get_mut().write_all(&[head.as_bytes(), &body].concat()).is_err();
}

/// A directory with a page and a repository in it.
fn served(world: &World) -> PathBuf {
    let served = world.0.0.join("served");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("page"), "the page").unwrap();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@t.example", "-c", "init.defaultBranch=main"]);
        assert!(git.args(arguments).current_dir(&served).output().unwrap().status.success(), "{arguments:?}");
    };
    git(&["init", "-q", "project"]);
    git(&["-C", "project", "commit", "-q", "--allow-empty", "-m", "first"]);
    git(&["-C", "project", "update-server-info"]);
    served
}

/// What a program is there for, unless it is not there.
fn is_here(program: &str) -> bool {
    let here = !program.starts_with('/') || Path::new(program).exists();
    if !here {
        note(&format!("there is no {program}"));
    }
    here
}

const URLLIB: &str =
    "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())";
const FETCH: &str =
    "fetch(process.argv[1]).then(r => r.text()).then(console.log).catch(() => process.exit(1))";

#[test]
fn curl_python_node_and_git_reach_a_name_that_is_allowed_and_no_other() {
    let world = World::new();
    let port = files(served(&world));
    let network = format!(
        "allow = [\"web.internal:{port}\", \"*.pages.internal:{port}\", \"localhost:{port}\"]\n\
         hosts = {{ \"web.internal\" = \"127.0.0.1\", \"a.pages.internal\" = \"127.0.0.1\", \"other.internal\" = \"127.0.0.1\" }}"
    );
    for host in ["web.internal", "a.pages.internal", "localhost", "127.0.0.1", "other.internal"] {
        let url = format!("http://{host}:{port}/page");
        let repository = format!("http://{host}:{port}/project/.git");
        let commands: [(&str, Vec<&str>, &str); 4] = [
            ("/usr/bin/curl", vec!["/usr/bin/curl", "-sS", "-m", "20", &url], "the page"),
            ("/usr/bin/python3", [&PYTHON[..], &[URLLIB, &url]].concat(), "the page"),
            ("/usr/bin/node", vec!["/usr/bin/node", "-e", FETCH, &url], "the page"),
            ("git", vec!["git", "ls-remote", &repository, "HEAD"], "HEAD"),
        ];
        for (program, command, said) in commands {
            if !is_here(program) {
                continue;
            }
            let done = world.exec(&network, &["--memory", "2GiB"], &command);
            if host == "other.internal" {
                assert!(done.code != 0 && !done.stdout.contains(said), "{program} {host}: {done:#?}");
                let allow = "[network]\nallow = [\"other.internal:443\"]";
                done.has_refused("resolve", host, allow);
            } else {
                assert!(done.code == 0 && done.stdout.contains(said), "{program} {host}: {done:#?}");
                // 127.0.0.1 is where `localhost` is.
                let door = format!("{}:{port}", if host == "127.0.0.1" { "localhost" } else { host });
                let to: Vec<String> = done.connections().into_iter().map(|(to, ..)| to).collect();
                assert!(!to.is_empty() && to.iter().all(|to| *to == door), "{to:?}");
                assert!(done.report["receipt"]["layers"]["network"].as_str().unwrap().starts_with("doors: "));
            }
        }
    }
}

/// TLS is theirs: each trusts the authority of the server, by the means that it has for that, and nobody else.
#[test]
fn git_node_and_python_speak_tls_with_the_server_through_a_door() {
    let world = World::new();
    let address = "127.71.0.5";
    let served = served(&world);
    if !speaks(address, move |stream| serve_file(stream, &served)) {
        return;
    }
    let network = door_to(address);
    let authority = file("authority.pem");
    let authority = authority.to_str().unwrap();
    let http = "require('https').get(process.argv[1], r => r.pipe(process.stdout)).on('error', () => process.exit(1))";
    let (git, node, python) = (
        format!("http.sslCAInfo={authority}"),
        format!("NODE_EXTRA_CA_CERTS={authority}"),
        format!("SSL_CERT_FILE={authority}"),
    );
    for host in ["tools.example", "other.example"] {
        let url = format!("https://{host}/page");
        let repository = format!("https://{host}/project/.git");
        let commands: [(&str, Vec<&str>, &str, &str); 4] = [
            ("git", vec!["-c", &git, "ls-remote", &repository, "HEAD"], "", "HEAD"),
            ("/usr/bin/node", vec!["-e", FETCH, &url], &node, "the page"),
            ("/usr/bin/node", vec!["-e", http, &url], &node, "the page"),
            ("/usr/bin/python3", [&PYTHON[1..], &[URLLIB, &url]].concat(), &python, "the page"),
        ];
        for (program, arguments, variable, said) in commands {
            if !is_here(program) {
                continue;
            }
            let run = |trusts: bool| {
                let arguments = if program == "git" && !trusts { &arguments[2..] } else { &arguments };
                let mut options = vec!["--memory", "2GiB", "--read", authority];
                if trusts && !variable.is_empty() {
                    options.extend(["--env", variable]);
                }
                world.exec(&network, &options, &[&[program], arguments].concat())
            };
            let done = run(true);
            if host == "other.example" {
                assert!(done.code != 0 && !done.stdout.contains(said), "{program} {host}: {done:#?}");
                done.has_refused("resolve", host, "[network]\nallow = [\"other.example:443\"]");
                continue;
            }
            assert!(done.code == 0 && done.stdout.contains(said), "{program}: {done:#?}");
            let to: Vec<String> = done.connections().into_iter().map(|(to, ..)| to).collect();
            assert!(!to.is_empty() && to.iter().all(|to| to == "tools.example:443"), "{program}: {to:?}");
            assert!(done.refused().is_empty(), "{program}: {:?}", done.refused());
            let trusting_nobody = run(false);
            assert!(
                trusting_nobody.code != 0 && !trusting_nobody.stdout.contains(said),
                "{trusting_nobody:#?}"
            );
        }
    }
}

/// c-ares, which Node has beside libc's: it reads no `/etc/hosts` for these questions, and asks the resolver itself.
#[test]
fn a_resolver_that_a_program_brings_along_finds_the_same_doors() {
    let world = World::new();
    if !is_here("/usr/bin/node") {
        return;
    }
    let port = files(served(&world));
    let network = format!(
        "allow = [\"web.internal:{port}\", \"*.pages.internal:{port}\"]\n\
         hosts = {{ \"web.internal\" = \"127.0.0.1\", \"a.pages.internal\" = \"127.0.0.1\" }}"
    );
    let script = format!(
        "(async () => {{
            for (const name of ['web.internal', 'a.pages.internal', 'pages.internal', 'other.internal']) try {{
                const [address] = await require('dns').promises.resolve4(name)
                console.log(name, address, await (await fetch(`http://${{address}}:{port}/page`)).text())
            }} catch (error) {{ console.log(name, error.code) }}
        }})()"
    );
    let done = world.exec(&network, &["--memory", "2GiB"], &["/usr/bin/node", "-e", &script]);
    assert_eq!(
        done.stdout,
        "web.internal 127.64.0.1 the page\na.pages.internal 127.80.0.1 the page\npages.internal ENOTFOUND\nother.internal ENOTFOUND\n",
        "{done:#?}"
    );
    let to: Vec<String> = done.connections().into_iter().map(|(to, ..)| to).collect();
    assert_eq!(to, [format!("web.internal:{port}"), format!("a.pages.internal:{port}")]);
    for name in ["pages.internal", "other.internal"] {
        done.has_refused("resolve", name, &format!("[network]\nallow = [\"{name}:443\"]"));
    }
}

#[test]
fn bytes_pass_unchanged_both_ways_and_half_a_connection_can_be_closed() {
    let world = World::new();
    let (echo, counting) = (host(echo), host(counting));
    let network = format!("allow = [\"127.0.0.1:{echo}\", \"localhost:{counting}\"]");
    // More than every buffer on the way, so that each side waits for the other.
    let done = world.python(
        &network,
        &format!(
            "import os, threading, time\n\
             sent = os.urandom(1 << 20) * 16\n\
             def connect(port): return socket.create_connection(('127.0.0.1', port), timeout=50)\n\
             s = connect({echo})\n\
             def send():\n    s.sendall(sent)\n    s.shutdown(socket.SHUT_WR)\n\
             t = threading.Thread(target=send); t.start()\n\
             got = s.makefile('rb').read(); t.join()\n\
             print(got == sent)\n\
             s = connect({counting}); s.sendall(b'x' * 70000); s.shutdown(socket.SHUT_WR)\n\
             print(s.makefile('rb').read().decode())\n\
             s = connect({echo}); s.sendall(b'a'); s.recv(1); began = time.monotonic()\n\
             for _ in range(50): s.sendall(b'a'); s.recv(1)\n\
             print(int((time.monotonic() - began) * 1e6)); s.close()\n"
        ),
    );
    let took = done.stdout.strip_prefix("True\n70000 bytes\n").unwrap_or_else(|| panic!("{done:#?}"));
    let took: u64 = took.trim_end().parse().unwrap();
    let all: u64 = 16 << 20;
    assert_eq!(
        done.connections(),
        [
            (format!("127.0.0.1:{echo}"), all, all, "cell".to_owned()),
            (format!("localhost:{counting}"), 70000, 11, "cell".to_owned()),
            (format!("127.0.0.1:{echo}"), 51, 51, "cell".to_owned()),
        ]
    );
    // The last one was there before its first answer, and after its last.
    let lasted = done.report["traffic"]["connections"][2]["duration_us"].as_u64().unwrap();
    assert!(lasted >= took && took > 0, "{lasted} {took}");
    assert_eq!(
        (&done.report["traffic"]["up"], &done.report["traffic"]["left_out"]),
        (&(all + 70051).into(), &0.into())
    );
    assert!(done.refused().is_empty(), "{:?}", done.refused());
}

#[test]
fn an_address_of_any_kind_is_in_the_cell_what_it_is_outside() {
    let world = World::new();
    let six = has_six();
    let allow = if six { "\"10.9.8.7:5432\", \"[2001:db8::7]:443\"" } else { "\"10.9.8.7:5432\"" };
    let script = |host: &str, port| {
        format!("s = socket.create_connection(('{host}', {port}), timeout=20)\nprint(s.getpeername()[:2])\n")
    };
    let script = format!(
        "{}{}",
        script("10.9.8.7", 5432),
        if six { script("2001:db8::7", 443) } else { String::new() }
    );
    let done = world.python(&format!("allow = [{allow}]"), &script);
    let wanted = if six { "('10.9.8.7', 5432)\n('2001:db8::7', 443)\n" } else { "('10.9.8.7', 5432)\n" };
    assert_eq!(done.stdout, wanted, "{done:#?}");
    let to: Vec<String> = done.connections().into_iter().map(|(to, ..)| to).collect();
    assert!(to.contains(&"10.9.8.7:5432".to_owned()), "{to:?}");
}

/// Programs that ask for addresses of IPv6 alone find names below a pattern too.
#[test]
fn a_name_below_a_pattern_has_an_address_of_each_kind() {
    if !has_six() {
        note("this host has no IPv6");
        return;
    }
    let world = World::new();
    let port = host(echo);
    let network = format!(
        "allow = [\"*.w.internal:{port}\"]\nhosts = {{ \"a.w.internal\" = \"127.0.0.1\", \"b.w.internal\" = \"127.0.0.1\" }}"
    );
    let script = format!(
        "for name, family in [('a', socket.AF_INET6), ('b', socket.AF_INET6), ('a', socket.AF_INET), ('b', socket.AF_UNSPEC)]:
    [(family, kind, _, _, at)] = socket.getaddrinfo(name + '.w.internal', {port}, family, socket.SOCK_STREAM)[:1]
    s = socket.socket(family, kind); s.connect(at); s.sendall(b'hello')
    print(at[0], s.recv(5), s.getpeername()[0])"
    );
    let done = world.python(&network, &script);
    let said = |address: &str| format!("{address} b'hello' {address}\n");
    let wanted = ["fd74:5ce1:1d00:1::1", "fd74:5ce1:1d00:1::2", "127.80.0.1"].map(said).concat();
    assert!(done.stdout.starts_with(&wanted) && done.code == 0, "{done:#?}");
    let to: Vec<String> = done.connections().into_iter().map(|(to, ..)| to).collect();
    let doors = ["a", "b", "a", "b"].map(|name| format!("{name}.w.internal:{port}"));
    assert_eq!(to.iter().collect::<BTreeSet<_>>(), doors.iter().collect());
    assert!(to.len() == 4 && done.refused().is_empty(), "{done:#?}");
}
