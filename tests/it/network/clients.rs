//! Programs as they are, which know nothing of doors. Never: sets a variable of a proxy.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use super::world::{PYTHON, World, counting, echo, host, host_at};
use crate::cell::note;

/// Serves the files of a directory.
fn files(directory: PathBuf) -> u16 {
    let serve = move |mut stream: TcpStream| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let Some(first) = lines.next() else { return };
        lines.take_while(|line| !line.is_empty()).for_each(drop);
        let path =
            first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap().trim_start_matches('/');
        let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let found = Some(directory.join(path)).filter(|_| plain).and_then(|path| fs::read(path).ok());
        let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _gone = stream.write_all(&[head.as_bytes(), &body].concat()).is_err();
    };
    host_at("127.0.0.1:0".parse().unwrap(), serve).unwrap().port()
}

#[test]
fn curl_python_node_and_git_reach_a_name_that_is_allowed_and_no_other() {
    let world = World::new();
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
    let port = files(served);
    let network = format!(
        "allow = [\"web.internal:{port}\", \"*.pages.internal:{port}\", \"localhost:{port}\"]\n\
         hosts = {{ \"web.internal\" = \"127.0.0.1\", \"a.pages.internal\" = \"127.0.0.1\", \"other.internal\" = \"127.0.0.1\" }}"
    );
    let python =
        "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())";
    let node = "fetch(process.argv[1]).then(r => r.text()).then(console.log).catch(() => process.exit(1))";
    for host in ["web.internal", "a.pages.internal", "localhost", "127.0.0.1", "other.internal"] {
        let url = format!("http://{host}:{port}/page");
        let repository = format!("http://{host}:{port}/project/.git");
        let commands: [(&str, Vec<&str>, &str); 4] = [
            ("/usr/bin/curl", vec!["/usr/bin/curl", "-sS", "-m", "20", &url], "the page"),
            ("/usr/bin/python3", [&PYTHON[..], &[python, &url]].concat(), "the page"),
            ("/usr/bin/node", vec!["/usr/bin/node", "-e", node, &url], "the page"),
            ("git", vec!["git", "ls-remote", &repository, "HEAD"], "HEAD"),
        ];
        for (program, command, said) in commands {
            if program.starts_with('/') && !Path::new(program).exists() {
                note(&format!("there is no {program}"));
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

#[test]
fn bytes_pass_unchanged_both_ways_and_half_a_connection_can_be_closed() {
    let world = World::new();
    let (echo, counting) = (host(echo), host(counting));
    let network = format!("allow = [\"127.0.0.1:{echo}\", \"localhost:{counting}\"]");
    // More than every buffer on the way, so that each side waits for the other.
    let done = world.python(
        &network,
        &format!(
            "import hashlib, os, threading\n\
             sent = os.urandom(1 << 20) * 16\n\
             def connect(port): return socket.create_connection(('127.0.0.1', port), timeout=50)\n\
             s = connect({echo})\n\
             def send():\n    s.sendall(sent)\n    s.shutdown(socket.SHUT_WR)\n\
             t = threading.Thread(target=send); t.start()\n\
             got = s.makefile('rb').read(); t.join()\n\
             print(got == sent)\n\
             s = connect({counting}); s.sendall(b'x' * 70000); s.shutdown(socket.SHUT_WR)\n\
             print(s.makefile('rb').read().decode())\n"
        ),
    );
    assert_eq!((done.stdout.as_str(), done.code), ("True\n70000 bytes\n", 0), "{done:#?}");
    let all: u64 = 16 << 20;
    assert_eq!(
        done.connections(),
        [
            (format!("127.0.0.1:{echo}"), all, all, "cell".to_owned()),
            (format!("localhost:{counting}"), 70000, 11, "cell".to_owned()),
        ]
    );
    assert_eq!(
        (&done.report["traffic"]["up"], &done.report["traffic"]["left_out"]),
        (&(all + 70000).into(), &0.into())
    );
    assert!(done.refused().is_empty(), "{:?}", done.refused());
}

#[test]
fn an_address_of_any_kind_is_in_the_cell_what_it_is_outside() {
    let world = World::new();
    let six = fs::read_to_string("/proc/net/if_inet6").is_ok_and(|all| !all.is_empty());
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
