//! Doors at which TLS ends: what passes, what is put in, and what is refused. Never: runs where there is no certificate of the tests'.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::upstream::{SECRET, Upstream, certificate};
use super::world::{Executed, PYTHON, World, echo, host, name_of_this_host};

/// The file of the secret, beside the profile.
pub(super) fn secret(world: &World) -> PathBuf {
    let path = world.0.0.join("secret");
    fs::write(&path, format!("{SECRET}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

pub(super) fn put_in(file: &std::path::Path) -> String {
    format!(
        "credential = {{ header = \"Authorization\", value = \"Bearer {{}}\", from = {{ file = {file:?} }} }}\n"
    )
}

fn curl<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["/usr/bin/curl", "-sS", "-m", "20"], more].concat()
}

pub(super) const OPEN: &str = "methods = [\"GET\", \"HEAD\", \"POST\"]\npaths = [\"/v1/**\"]\n";

impl Executed {
    /// The rule by which a request was refused.
    #[track_caller]
    fn rule(&self, object: &str) -> String {
        let all = self.report["violations"].as_array().unwrap();
        let found = all.iter().find(|one| one["layer"] == "network" && one["object"] == object);
        found.unwrap_or_else(|| panic!("{object} is not in {all:#?}"))["rule"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_request_gets_the_credential_that_no_cell_ever_has() {
    let world = World::new();
    let upstream = Upstream::new();
    let network = upstream.network(&format!("{OPEN}{}", put_in(&secret(&world))));
    let asks = [
        "-H",
        "Authorization: Bearer mine",
        "-H",
        "Accept-Encoding: gzip",
        "http://tools.example/v1/echo?a=b",
    ];
    let done = world.exec(&network, &[], &curl(&asks));
    let asked = upstream.asked();
    let [request] = &asked[..] else { panic!("{asked:?} {done:#?}") };
    assert!(request.starts_with("GET /v1/echo?a=b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", upstream.door())), "{request}");
    assert!(
        request.contains(&format!("authorization: Bearer {SECRET}\r\n")) && !request.contains("mine"),
        "{request}"
    );
    assert!(request.contains("accept-encoding: identity\r\n") && !request.contains("gzip"), "{request}");
    // What says the request again says it without the secret.
    assert_eq!(done.stdout, request.replace(SECRET, &format!("[redacted:{}]", upstream.door())), "{done:#?}");
    assert!(!done.report.to_string().contains(SECRET) && !done.stderr.contains(SECRET));
    let [(to, up, down, by)] = &done.connections()[..] else { panic!("{done:#?}") };
    assert!(*to == upstream.door() && *up > 50 && *down > 100 && by == "cell", "{to} {up} {down} {by}");
    assert!(done.refused().is_empty(), "{done:#?}");
    let receipt = done.report["receipt"]["layers"]["network"].as_str().unwrap();
    assert_eq!(
        receipt,
        format!(
            "doors: {} at 127.64.0.1:80 (TLS ends at the door: GET HEAD POST of /v1/**; `Authorization` is put in by the door)",
            upstream.door()
        )
    );
}

/// What was judged is what the host gets, also where a method seldom has a body, or a body seldom no bytes.
#[test]
fn a_body_is_passed_on_as_it_was_framed() {
    let world = World::new();
    let upstream = Upstream::new();
    let open = "methods = [\"GET\", \"PUT\"]\npaths = [\"/v1/**\"]\n";
    let network = upstream.network(&format!("{open}{}", put_in(&secret(&world))));
    let ask = |more: &[&str]| {
        let done = world.exec(&network, &[], &curl(&[more, &["http://tools.example/v1/echo"]].concat()));
        assert!(done.refused().is_empty(), "{done:#?}");
        upstream.asked().pop().unwrap()
    };
    let chunked = ask(&["-X", "GET", "-H", "Transfer-Encoding: chunked", "-d", "what is asked"]);
    assert!(chunked.starts_with("GET ") && chunked.ends_with("\r\n\r\nwhat is asked"), "{chunked}");
    let empty = ask(&["-X", "PUT", "-H", "Content-Length: 0"]);
    assert!(empty.to_ascii_lowercase().contains("\r\ncontent-length: 0\r\n"), "{empty}");
    // Parts of an answer in which a secret stands would show it in parts.
    let part = ask(&["-r", "0-6"]);
    assert!(!part.to_ascii_lowercase().contains("range"), "{part}");
}

/// Who hangs up while more of its words wait, behind a request that is not answered, holds no place.
#[test]
fn a_hang_up_behind_further_words_is_noticed() {
    let world = World::new();
    let upstream = Upstream::new();
    let network = format!("connections = 1\n{}", upstream.network(OPEN));
    let script = "s = socket.create_connection(('tools.example', 80), timeout=20)
s.sendall(b'GET /v1/silent HTTP/1.1\\r\\nHost: tools.example\\r\\n\\r\\nG')
s.close()
import http.client
there = http.client.HTTPConnection('tools.example', timeout=20)
there.request('GET', '/v1/echo'); print(there.getresponse().status)";
    let done = world.python(&network, script);
    assert_eq!(done.stdout, "200\n", "{done:#?}");
}

/// Environment, arguments, memory and files of everything in the cell, and what everybody on the host can see.
#[test]
fn the_secret_is_nowhere_in_the_cell_while_it_is_used() {
    let world = World::new();
    let upstream = Upstream::new();
    let network = upstream.network(&format!("{OPEN}{}", put_in(&secret(&world))));
    let half = SECRET.split_at(8);
    let script = format!(
        "import http.client, os, stat, subprocess
what = ({:?} + {:?}).encode()
there = http.client.HTTPConnection('tools.example', timeout=20)
there.request('GET', '/v1/scan'); print(there.getresponse().read().decode())
found = []
def look(path):
    try:
        # What is no file can keep its reader waiting.
        if not stat.S_ISREG(os.stat(path).st_mode): return
        with open(path, 'rb') as file:
            if what in file.read(1 << 24): found.append(path)
    except OSError: pass
for top in ['/proc', '/etc', '/tmp', '/dev', '/run', '/home', '/root', '/var', {:?}]:
    for place, below, files in os.walk(top):
        for file in files:
            if file not in ('mem', 'kmsg', 'pagemap', 'kcore'): look(os.path.join(place, file))
def remembers(pid):
    try:
        with open(f'/proc/{{pid}}/maps') as maps, open(f'/proc/{{pid}}/mem', 'rb', 0) as memory:
            for line in maps:
                start, end = (int(part, 16) for part in line.split()[0].split('-'))
                try:
                    memory.seek(start)
                    if what in memory.read(end - start): return True
                except (OSError, ValueError, OverflowError): pass
    except OSError: pass
    return False
found += [f'memory of {{pid}}' for pid in os.listdir('/proc') if pid.isdigit() and int(pid) != os.getpid() and remembers(pid)]
control = subprocess.Popen([sys.executable, '-S', '-c', 'import sys; it = sys.argv[1] + sys.argv[2]; print(flush=True); sys.stdin.read()',
    {:?}, {:?}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
control.stdout.readline()
print(found, remembers(control.pid))
with open('/tmp/control', 'wb') as control: control.write(what)
look('/tmp/control'); print(found)",
        half.0,
        half.1,
        world.0.0,
        half.0,
        half.1
    );
    let done = world.python(&network, &script);
    // Another process's memory and the last file were made to be found.
    assert_eq!(done.stdout, "seen: []\n[] True\n['/tmp/control']\n", "{done:#?}");
}

#[test]
fn what_no_rule_allows_is_refused_and_told_how_it_would_be_allowed() {
    let world = World::new();
    let upstream = Upstream::new();
    let door = upstream.door();
    let network = upstream.network("methods = [\"GET\"]\npaths = [\"/v1/user\", \"/v1/repos/**\"]\n");
    let section = format!("[network.http.\"{door}\"]");
    for (asks, object, key, allow) in [
        (
            vec!["-X", "DELETE", "http://tools.example/v1/user"],
            format!("DELETE {door}/v1/user"),
            "methods",
            format!("{section}\nmethods = [\"GET\", \"DELETE\"]"),
        ),
        (
            vec!["-d", "x", "http://tools.example/v1/user"],
            format!("POST {door}/v1/user"),
            "methods",
            format!("{section}\nmethods = [\"GET\", \"POST\"]"),
        ),
        (
            vec!["http://tools.example/v1/users?x=secret"],
            format!("GET {door}/v1/users"),
            "paths",
            format!("{section}\npaths = [\"/v1/user\", \"/v1/repos/**\", \"/v1/users\"]"),
        ),
    ] {
        let done = world.exec(&network, &[], &curl(&[&["-w", "%{http_code}"][..], &asks].concat()));
        let asked = object.replace(&door, "");
        let told = format!(
            "toolcell: `{asked}` is not allowed at `http://tools.example`: it is not in `{key}`\nallowed by:\n{allow}\n403"
        );
        assert_eq!(done.stdout, told, "{done:#?}");
        done.has_refused("request", &object, &allow);
        assert_eq!(done.rule(&object), format!("`{key}` in `{section}`"));
        let [(_, _, _, by)] = &done.connections()[..] else { panic!("{done:#?}") };
        assert_eq!(by, "door");
    }
    let other =
        world.exec(&network, &[], &curl(&["-H", "Host: evil.example", "http://tools.example/v1/user"]));
    assert!(other.stdout.contains("names another host than `tools.example`"), "{other:#?}");
    other.has_refused("request", &format!("GET {door}/v1/user"), "");
    let nothing = upstream.network("methods = []\npaths = [\"/**\"]\n");
    let none = world.exec(&nothing, &[], &curl(&["http://tools.example/"]));
    assert!(none.stdout.contains("is not in `methods`"), "{none:#?}");
    assert_eq!(upstream.asked(), Vec::<String>::new());
    // The door's own port has nothing behind it in the cell, and the record says what has.
    let script = format!(
        "try: socket.create_connection(('tools.example', {}), timeout=20)
except OSError as error: print(errno.errorcode[error.errno])",
        upstream.port
    );
    let direct = world.python(&network, &script);
    assert_eq!(direct.stdout, "ECONNREFUSED\n", "{direct:#?}");
    let object = format!("127.64.0.1:{}", upstream.port);
    direct.has_refused("connect", &object, "");
    assert_eq!(direct.rule(&object), "TLS ends at the door: the way to it is `http://tools.example`");
    let done = world.exec(
        &network,
        &[],
        &curl(&["http://tools.example/v1/user", "http://tools.example/v1/repos/a"]),
    );
    assert_eq!((done.connections().len(), upstream.asked().len()), (1, 2), "{done:#?}");
}

/// What two programs would read in two ways, as bytes; behind each a request that would be let through, and must not be.
#[test]
fn no_request_is_smuggled() {
    let world = World::new();
    let upstream = Upstream::new();
    let network = upstream.network(&format!("{OPEN}{}", put_in(&secret(&world))));
    let script = r#"
HOST = b'Host: tools.example\r\n'
BEHIND = b'GET /v1/smuggled HTTP/1.1\r\n' + HOST + b'\r\n'
def get(lines=b'', target=b'/v1/a', version=b'HTTP/1.1', host=HOST, method=b'GET'):
    return method + b' ' + target + b' ' + version + b'\r\n' + host + lines + b'\r\n'
def post(lines, body=b''): return get(lines, method=b'POST') + body
tries = {
    'length and chunks': post(b'Content-Length: 6\r\nTransfer-Encoding: chunked\r\n', b'0\r\n\r\n' + BEHIND),
    'chunks and length': post(b'Transfer-Encoding: chunked\r\nContent-Length: 6\r\n', b'0\r\n\r\n' + BEHIND),
    'two lengths': post(b'Content-Length: 0\r\nContent-Length: 60\r\n', BEHIND),
    'list of lengths': post(b'Content-Length: 0, 60\r\n', BEHIND),
    'signed length': post(b'Content-Length: +0\r\n', BEHIND),
    'space before colon': post(b'Content-Length : 60\r\n', BEHIND),
    'encoding in disguise': post(b'Transfer-Encoding: xchunked\r\n', b'0\r\n\r\n' + BEHIND),
    'encoding with tab': post(b'Transfer-Encoding:\x0bchunked\r\n', b'0\r\n\r\n' + BEHIND),
    'encoding with underscore': post(b'Transfer_Encoding: chunked\r\n', b'0\r\n\r\n' + BEHIND),
    'two encodings': post(b'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n', b'0\r\n\r\n' + BEHIND),
    'folded': get(b'X-A: b\r\n Transfer-Encoding: chunked\r\n') + BEHIND,
    'bare line feed': get().replace(b'\r\n', b'\n') + BEHIND,
    'line feed in a header': get(b'X-A: b\nTransfer-Encoding: chunked\r\n') + BEHIND,
    'carriage return in a header': get(b'X-A: b\rX-C: d\r\n') + BEHIND,
    'nul': get(b'X-A: \0\r\n') + BEHIND,
    'chunk extension': post(b'Transfer-Encoding: chunked\r\n', b'1;a=b\r\nx\r\n0\r\n\r\n' + BEHIND),
    'chunk size': post(b'Transfer-Encoding: chunked\r\n', b'0x1\r\nx\r\n0\r\n\r\n' + BEHIND),
    'chunk line feed': post(b'Transfer-Encoding: chunked\r\n', b'1\nx\r\n0\r\n\r\n' + BEHIND),
    'chunk overrun': post(b'Transfer-Encoding: chunked\r\n', b'1\r\nxyz\r\n0\r\n\r\n' + BEHIND),
    'trailers': post(b'Transfer-Encoding: chunked\r\n', b'0\r\nAuthorization: x\r\n\r\n' + BEHIND),
    'absolute': get(target=b'http://tools.example/v1/a') + BEHIND,
    'another authority': get(target=b'http://evil.example/v1/a') + BEHIND,
    'two hosts': get(host=HOST + b'Host: evil.example\r\n') + BEHIND,
    'no host': get(host=b'') + BEHIND,
    'another host': get(host=b'Host: evil.example\r\n') + BEHIND,
    'connect': get(target=b'evil.example:443', method=b'CONNECT') + BEHIND,
    'trace': get(method=b'TRACE') + BEHIND,
    'upgrade': get(b'Connection: Upgrade\r\nUpgrade: h2c\r\n') + BEHIND,
    'http/1.0': get(version=b'HTTP/1.0') + BEHIND,
    'http/2': b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + BEHIND,
    'dots': get(target=b'/v1/../admin') + BEHIND,
    'encoded dots': get(target=b'/v1/%2e%2e/admin') + BEHIND,
    'encoded slash': get(target=b'/v1/..%2Fadmin') + BEHIND,
    'two slashes': get(target=b'//evil.example/v1/a') + BEHIND,
    'semicolon': get(target=b'/v1/..;/admin') + BEHIND,
    'backslash': get(target=b'/v1/..\\admin') + BEHIND,
    'case': get(target=b'/V1/a') + BEHIND,
    'override': get(b'X-HTTP-Method-Override: DELETE\r\n') + BEHIND,
    'rewrite': get(b'X-Original-URL: /admin\r\n') + BEHIND,
    'tls': b'\x16\x03\x01\x00\x05hello' + BEHIND,
}
for name, said in tries.items():
    s = socket.create_connection(('tools.example', 80), timeout=20)
    s.sendall(said)
    answer = b''
    try:
        while True:
            more = s.recv(65536)
            if not more: break
            answer += more
    except ConnectionResetError: pass
    first = answer.split(b'\r\n')[0].decode()
    if not first.startswith('HTTP/1.1 4') and not first.startswith('HTTP/1.1 5') or b'HTTP/1.1 2' in answer: print(name, answer)
# One that is allowed, and behind it one that is not.
s = socket.create_connection(('tools.example', 80), timeout=20)
s.sendall(get() + get(method=b'DELETE') + BEHIND)
answer = s.makefile('rb').read()
print([line.decode() for line in answer.split(b'\r\n') if line.startswith(b'HTTP/1.1 ')])
"#;
    let done = world.python(&network, script);
    assert_eq!(done.stdout, "['HTTP/1.1 200 OK', 'HTTP/1.1 403 Forbidden']\n", "{done:#?}");
    let asked = upstream.asked();
    assert!(
        asked.len() <= 6 && asked.iter().all(|one| !one.contains("smuggled") && !one.contains("admin")),
        "{asked:#?}"
    );
    assert!(
        done.refused().iter().filter(|(operation, ..)| operation == "request").count() >= 20,
        "{done:#?}"
    );
}

#[test]
fn bodies_pass_both_ways_and_an_answer_in_pieces_without_the_secret() {
    let world = World::new();
    let upstream = Upstream::new();
    let network = upstream.network(&format!("{OPEN}{}", put_in(&secret(&world))));
    let script = "import http.client
there = http.client.HTTPConnection('tools.example', timeout=20)
def ask(method, path, **more):
    there.request(method, path, **more); answer = there.getresponse(); return answer, answer.read()
answer, body = ask('POST', '/v1/echo', body=b'x' * 300000)
print(answer.status, body.count(b'x') >= 300000)
answer, body = ask('POST', '/v1/echo', body=iter([b'one', b'two']), encode_chunked=True, headers={'Transfer-Encoding': 'chunked'})
print(answer.status, body.endswith(b'onetwo'))
answer, body = ask('POST', '/v1/echo', body=b'more', headers={'Expect': '100-continue'})
print(answer.status, body.endswith(b'more'))
answer, body = ask('GET', '/v1/large')
print(answer.status, len(body))
answer, body = ask('HEAD', '/v1/echo')
print(answer.status, body, int(answer.headers['content-length']) > 0)
there.request('GET', '/v1/pieces'); answer = there.getresponse()
# What is no part of the secret comes while nothing more does.
print(answer.headers['x-echo'], answer.read(6))
other = http.client.HTTPConnection('tools.example', timeout=20); other.request('GET', '/v1/on'); other.getresponse().read(); other.close()
print(answer.read())
try: print(ask('GET', '/v1/cut'))
except (http.client.IncompleteRead, ConnectionResetError) as error: print('cut')";
    let done = world.python(&network, script);
    let mark = format!("[redacted:{}]", upstream.door());
    let wanted = format!(
        "200 True\n200 True\n200 True\n200 3000000\n200 b'' True\n{mark} b'first\\n'\nb'{mark}\\nlast\\n'\ncut\n"
    );
    assert_eq!(done.stdout, wanted, "{done:#?}");
    assert_eq!(done.connections().len(), 2, "{done:#?}");
    let plain =
        world.exec(&upstream.network(OPEN), &[], &curl(&["-D", "-", "http://tools.example/v1/large"]));
    assert!(plain.stdout.contains("content-length: 3000000\r\n") && plain.stdout.len() > 3_000_000);
}

#[test]
fn who_is_not_proved_to_be_the_host_gets_no_request() {
    let world = World::new();
    let upstream = Upstream::new();
    let door = upstream.door();
    // The host trusts others than who made the tests' certificates.
    let network = upstream.network(&format!("{OPEN}{}", put_in(&secret(&world))));
    let roots = format!("roots = {:?}\n", certificate("authority.pem"));
    let bundle = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
    if bundle.iter().any(|path| fs::exists(path).unwrap()) {
        let unknown = world.exec(&network.replace(&roots, ""), &[], &curl(&["http://tools.example/v1/a"]));
        assert!(
            unknown.stdout.contains(&format!(
                "who answers is not proved to be `{door}`: invalid peer certificate: UnknownIssuer"
            )),
            "{unknown:#?}"
        );
        unknown.has_refused("connect", &door, "");
        assert!(unknown.rule(&door).ends_with("invalid peer certificate: UnknownIssuer"));
    }
    let named = network.replace("tools.example", "other.example");
    let named = world.exec(&named, &[], &curl(&["http://other.example/v1/a"]));
    assert!(
        named.stdout.contains("is not proved to be") && named.stdout.contains("not valid for name"),
        "{named:#?}"
    );
    assert_eq!(upstream.asked(), Vec::<String>::new());
    let plain = host(echo);
    let to = |port: u16| network.replace(&upstream.port.to_string(), &port.to_string());
    let plain = world.exec(&to(plain), &[], &curl(&["-w", "%{http_code}", "http://tools.example/v1/a"]));
    assert!(plain.stdout.contains("there is no TLS with") && plain.stdout.ends_with("502"), "{plain:#?}");
    let nobody = world.exec(&to(1), &[], &curl(&["-w", "%{http_code}", "http://tools.example/v1/a"]));
    assert!(nobody.stdout.contains("nobody answers there") && nobody.stdout.ends_with("502"), "{nobody:#?}");
    let [(_, _, _, by)] = &nobody.connections()[..] else { panic!("{nobody:#?}") };
    assert_eq!(by, "unreachable");
    let empty = network.replace("authority.pem", "key.pem");
    let empty = world.exec(&empty, &[], &["/bin/true"]);
    assert!(empty.code != 0 && empty.stderr.contains("no certificates of authorities are in"), "{empty:#?}");
}

/// A name that leads to this host without that being granted.
#[test]
fn a_name_that_leads_astray_gets_no_request() {
    let world = World::new();
    let Some(name) = name_of_this_host() else { return };
    let port = host(echo);
    let network = format!(
        "allow = [\"{name}:{port}\"]\n[network.http.\"{name}:{port}\"]\ntls = \"end\"\nroots = {:?}\n{OPEN}",
        certificate("authority.pem")
    );
    let done = world.exec(&network, &[], &curl(&["-w", "%{http_code}", &format!("http://{name}/v1/a")]));
    assert!(done.stdout.contains("may not be reached") && done.stdout.ends_with("502"), "{done:#?}");
    let refused = done.refused();
    assert!(
        refused.iter().any(|(_, object, _)| object.starts_with(&format!("{name}:{port} at "))),
        "{refused:?}"
    );
}

#[test]
fn without_its_secret_nothing_runs() {
    let world = World::new();
    let upstream = Upstream::new();
    let missing = world.0.0.join("missing");
    let rules = |from: &str| {
        format!("{OPEN}credential = {{ header = \"X-Api-Key\", value = \"{{}}\", from = {{ {from} }} }}\n")
    };
    let door = upstream.door();
    let network = upstream.network(&rules(&format!("file = {missing:?}")));
    let done = world.exec(&network, &[], &["/bin/echo", "ran"]);
    assert_eq!(done.stdout, "", "{done:#?}");
    for part in [
        format!("error: the door `{door}` has nothing to put into `header X-Api-Key`\n"),
        format!("caused by: cannot read `{}`", missing.display()),
        "hint: put the secret there".to_owned(),
    ] {
        assert!(done.stderr.contains(&part), "{part}: {done:#?}");
    }
    assert_eq!(done.report["status"]["kind"], "refused");
    fs::write(&missing, "two lines\nof something\n").unwrap();
    fs::set_permissions(&missing, fs::Permissions::from_mode(0o600)).unwrap();
    let lines = world.exec(&network, &[], &["/bin/echo", "ran"]);
    assert!(lines.stdout.is_empty() && lines.stderr.contains("no header can"), "{lines:#?}");
    // One that the tool would see is refused too.
    fs::write(&missing, SECRET).unwrap();
    let seen = world.exec(&network, &["--read", world.0.0.to_str().unwrap()], &["/bin/echo", "ran"]);
    assert!(seen.stdout.is_empty() && seen.code != 0, "{seen:#?}");
    // Nor may it change whom the door trusts.
    let trusted = world.0.0.join("trusted");
    fs::create_dir(&trusted).unwrap();
    fs::copy(certificate("authority.pem"), trusted.join("ca.pem")).unwrap();
    let changed = upstream
        .network(OPEN)
        .replace(&format!("{:?}", certificate("authority.pem")), &format!("{:?}", trusted.join("ca.pem")));
    let changed = world.exec(&changed, &["--write", trusted.to_str().unwrap()], &["/bin/echo", "ran"]);
    assert!(changed.stdout.is_empty() && changed.stderr.contains("would let a tool change"), "{changed:#?}");
    // A variable is taken out of what the cell could get, whatever lets it through.
    let network = upstream.network(&rules("env = \"DOOR_KEY\""));
    let script = "import os, http.client
there = http.client.HTTPConnection('tools.example', timeout=20); there.request('GET', '/v1/a'); print(there.getresponse().status)
print(os.environ.get('DOOR_KEY'))";
    let mut toolcell =
        world.command(&network, &["--env", "DOOR_KEY"], &["/usr/bin/python3", "-S", "-c", script]);
    let done = world.finished(&toolcell.env("DOOR_KEY", SECRET).output().unwrap());
    assert_eq!(done.stdout, "200\nNone\n", "{done:#?}");
    assert!(upstream.asked()[0].contains(&format!("x-api-key: {SECRET}\r\n")));
}

/// Who says nothing, says it slowly, or takes nothing has a place among `connections` and no other's.
#[test]
fn floods_half_open_and_slow_connections_hold_up_nobody_else() {
    let world = World::new();
    let upstream = Upstream::new();
    let network = upstream.network(OPEN).replace("allow =", "connections = 8\nallow =");
    let script = "import http.client, threading, time
began = time.monotonic()
def get():
    there = http.client.HTTPConnection('tools.example', timeout=50); there.request('GET', '/v1/a'); there.getresponse().read(); done.append(1)
idle = [socket.create_connection(('tools.example', 80), timeout=50) for _ in range(3)]
slow = [socket.create_connection(('tools.example', 80), timeout=50) for _ in range(2)]
for s in slow: s.sendall(b'GET /v1/a HTTP/1.1\\r\\nHo')
deaf = socket.create_connection(('tools.example', 80), timeout=50); deaf.sendall(b'GET /v1/large HTTP/1.1\\r\\nHost: tools.example\\r\\n\\r\\n')
done = []
all = [threading.Thread(target=get) for _ in range(40)]
[t.start() for t in all]; [t.join() for t in all]
print(len(done))
# Ten seconds after its first byte a head has to be there.
for s in slow:
    try: print(s.recv(100))
    except ConnectionResetError: print('reset')
print(time.monotonic() - began < 30)";
    let done = world.python(&network, script);
    assert_eq!(done.stdout, "40\nreset\nreset\nTrue\n", "{done:#?}");
    done.has_refused("connect", "", "[network]\nconnections = 16");
    let by: Vec<String> = done.connections().into_iter().map(|(.., by)| by).collect();
    assert!(by.iter().any(|by| by == "door"), "{by:?}");
}

#[test]
fn bytes_are_bounded_each_way_at_an_ended_door_too() {
    let world = World::new();
    let upstream = Upstream::new();
    let bounded = |bound: &str| upstream.network(OPEN).replace("allow =", &format!("{bound}\nallow ="));
    let down = world.exec(
        &bounded("down = \"100kB\""),
        &[],
        &curl(&["-o", "/dev/null", "http://tools.example/v1/large"]),
    );
    assert!(down.code != 0, "{down:#?}");
    down.has_refused("transfer", "", "[network]\ndown = \"200kB\"");
    let body = "x".repeat(120_000);
    let up = world.exec(
        &bounded("up = \"100kB\""),
        &[],
        &curl(&["-d", &body[..], "http://tools.example/v1/echo"]),
    );
    assert!(up.code != 0, "{up:#?}");
    up.has_refused("transfer", "", "[network]\nup = \"200kB\"");
    let [(_, sent, _, by)] = &up.connections()[..] else { panic!("{up:#?}") };
    assert!(*sent <= 100_000 && by == "limit", "{sent} {by}");
    // Of the door alone.
    let door = format!("tools.example:{}", upstream.port);
    let own = |limit: &str| {
        let plain = format!("allow = [\"{door}\"]");
        upstream.network(OPEN).replace(&plain, &format!("allow = [{{ to = \"{door}\", {limit} }}]"))
    };
    let line = |limit: &str| format!("[network]\nallow = [{{ to = \"{door}\", {limit} }}]");
    let up =
        world.exec(&own("up = \"100kB\""), &[], &curl(&["-d", &body[..], "http://tools.example/v1/echo"]));
    assert!(up.code != 0, "{up:#?}");
    up.has_refused("transfer", &door, &line("up = \"200kB\""));
    // A connection that has an answer and then nothing is ended by its time.
    let late = world.exec(
        &own("time = \"200ms\""),
        &[],
        &curl(&["http://tools.example/v1/a", "http://tools.example/v1/silent"]),
    );
    assert!(late.code != 0, "{late:#?}");
    late.has_refused("stay connected", &door, &line("time = \"400ms\""));
    assert_eq!(late.connections()[0].3, "limit", "{late:#?}");
}

/// Who asks nothing has twice as long as who does not go on with a body, or with taking an answer.
#[test]
fn who_says_and_takes_nothing_for_long_is_ended() {
    let world = World::new();
    let upstream = Upstream::new();
    let script = "import select, time
began, polls, names = time.monotonic(), select.poll(), {}
def start(name, words):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(('tools.example', 80)); s.sendall(words)
    polls.register(s, select.POLLRDHUP); names[s.fileno()] = name, s
start('idle', b'')
start('body', b'POST /v1/echo HTTP/1.1\\r\\nHost: tools.example\\r\\nContent-Length: 9\\r\\n\\r\\nhalf')
start('answer', b'GET /v1/large HTTP/1.1\\r\\nHost: tools.example\\r\\n\\r\\n')
while names:
    for end, _ in polls.poll():
        polls.unregister(end); name, _ = names.pop(end)
        print(name, int(time.monotonic() - began))";
    let script = format!("import socket\n{script}");
    let done = world.exec(&upstream.network(OPEN), &["--timeout", "5m"], &[&PYTHON[..], &[&script]].concat());
    let mut ends: Vec<(&str, u32)> = done
        .stdout
        .lines()
        .filter_map(|line| line.split_once(' ').map(|(name, after)| (name, after.parse().unwrap())))
        .collect();
    ends.sort_unstable();
    let [("answer", answer), ("body", body), ("idle", idle)] = ends[..] else { panic!("{done:#?}") };
    assert!(answer >= 29 && body >= 29 && idle >= 59, "{done:#?}");
    assert!(done.connections().iter().all(|(.., by)| by == "door"), "{done:#?}");
}
