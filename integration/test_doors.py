"""Programs that others wrote reach what a profile allows through doors, as they are, and nothing else.

Neighbours: `it::network` has curl, Python's and Node's own libraries, git, and every attack. Never: leaves this host.
"""

import glob
import http.server
import json
import os
import pathlib
import pwd
import shutil
import socket
import ssl
import subprocess
import time

import case
import fixtures

FETCH = fixtures.FIXTURES / "python" / "fetch" / "bin" / "python"
REQUESTS = "import sys, requests; print(requests.get(sys.argv[1], timeout=20).text)"
HTTPX = "import sys, httpx; print(httpx.get(sys.argv[1], timeout=20).text)"
NODE_HTTP = "require('http').get(process.argv[1], r => r.pipe(process.stdout)).on('error', e => { console.error(e); process.exit(1) })"
NODE_FETCH = "fetch(process.argv[1]).then(r => r.text()).then(console.log).catch(() => process.exit(1))"
RUST = """
use std::io::{Read, Write};
fn main() {
    let to = std::env::args().nth(1).unwrap();
    let mut stream = std::net::TcpStream::connect(&to).unwrap();
    write!(stream, "GET /page HTTP/1.0\\r\\nHost: {to}\\r\\n\\r\\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    print!("{said}");
}
"""
JAVA = """
public class Client {
    public static void main(String[] arguments) throws Exception {
        String[] to = arguments[0].split(":");
        try (java.net.Socket there = new java.net.Socket(to[0], Integer.parseInt(to[1]))) {
            there.getOutputStream().write(("GET /page HTTP/1.0\\r\\nHost: " + arguments[0] + "\\r\\n\\r\\n").getBytes());
            System.out.print(new String(there.getInputStream().readAllBytes()));
        }
    }
}
"""
C = """
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **arguments) {
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found, *one;
    char request[512], part[4096];
    char *port = strchr(arguments[1], ':');
    int length = snprintf(request, sizeof request, "GET /page HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n", arguments[1]);
    *port++ = 0;
    int failed = getaddrinfo(arguments[1], port, &wanted, &found);
    if (failed) return fprintf(stderr, "%s\\n", gai_strerror(failed)), 2;
    for (one = found; one; one = one->ai_next) {
        int there = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (connect(there, one->ai_addr, one->ai_addrlen)) { close(there); continue; }
        if (write(there, request, length) != length) return 3;
        ssize_t got, all = 0;
        for (; (got = read(there, part, sizeof part)) > 0; all += got) fwrite(part, 1, got, stdout);
        return all ? 0 : 4;
    }
    return 1;
}
"""
URLLIB = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"
# A host with a name that the certificate has, and an authority of the tests' own that vouches for it.
CERTIFICATES = pathlib.Path(__file__).resolve().parent.parent / "tests" / "it" / "serve" / "certificates"
SECURE = ("tools.example", "127.71.0.9")
PAGES = {"/page": ("text/plain", b"the page"),
         "/page.html": ("text/html", b"<html><body><article><p>" + b"the page, in words. " * 20 + b"</p></article></body></html>")}
# Who may not be root, and has no rights on this host.
NOBODY = 65534


class Page(http.server.BaseHTTPRequestHandler):
    """Two pages, and no rules for robots."""

    def do_GET(self):
        """Answers."""
        kind, body = PAGES.get(self.path, ("text/plain", b""))
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


class Doors(case.Case):
    """One host, and a profile with a door to it."""

    only = case.once()

    def setUp(self):
        super().setUp()
        self.port = self.serve(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page))

    def profile(self, network):
        """A profile on top of `default`."""
        path = self.work / "doors.toml"
        path.write_text(f'extends = "default"\n[network]\n{network}\n', encoding="utf-8")
        return path

    def exec(self, network, *command, env=()):
        """A command in a cell, with these variables, and its report."""
        report = self.work / "report.json"
        floor = () if self.full else ("--floor=no-cgroup",)
        done = subprocess.run(
            [case.TOOLCELL, "exec", *floor, "--memory=2GiB", f"--profile={self.profile(network)}", f"--report={report}",
             "--read", str(fixtures.FIXTURES), "--read", str(self.work), *(f"--env={each}" for each in env), "--", *map(str, command)],
            capture_output=True, text=True, check=False, env=self.base, stdin=subprocess.DEVNULL, cwd=self.work)
        return done, json.loads(report.read_text(encoding="utf-8"))

    def reaches(self, *command, name="web.internal", env=()):
        """The program gets the page through the door, and nothing of a host that has none; what it said on stderr."""
        network = (f'allow = ["web.internal:{self.port}", "*.pages.internal:{self.port}"]\n'
                   'hosts = { "web.internal" = "127.0.0.1", "a.pages.internal" = "127.0.0.1" }')
        filled = [str(word).replace("{host}", f"{name}:{self.port}") for word in command]
        done, report = self.exec(network, *filled, env=env)
        if name == "other.internal":
            self.assertNotEqual(done.returncode, 0, done)
            objects = [one["object"] for one in report["violations"] if one["layer"] == "network"]
            self.assertIn(name, objects)
        else:
            self.assertEqual((done.returncode, "the page" in done.stdout), (0, True), done)
            self.assertEqual({one["to"] for one in report["traffic"]["connections"]}, {f"{name}:{self.port}"})
        return done.stderr

    def both(self, *command):
        """The same with a name below a pattern, and with one that is not allowed."""
        for name in ("web.internal", "a.pages.internal", "other.internal"):
            self.reaches(*command, name=name)

    def test_https(self):
        name, address = SECURE
        try:
            server = http.server.ThreadingHTTPServer((address, 443), Page)
        except OSError:
            # An ordinary user's, or somebody else has it.
            server = http.server.ThreadingHTTPServer((address, 0), Page)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATES / "certificate.pem", CERTIFICATES / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        port = self.serve(server)
        authority = self.work / "authority.pem"
        shutil.copy(CERTIFICATES / "authority.pem", authority)
        network = f'allow = ["{name}:{port}"]\nhosts = {{ "{name}" = "{address}" }}'
        for script, variable in ((REQUESTS, "REQUESTS_CA_BUNDLE"), (HTTPX, "SSL_CERT_FILE"), (URLLIB, "SSL_CERT_FILE")):
            command = (FETCH, "-c", script, f"https://{name}:{port}/page")
            done, report = self.exec(network, *command, env=(f"{variable}={authority}",))
            self.assertEqual((done.returncode, done.stdout), (0, "the page\n"), done)
            self.assertEqual([one["to"] for one in report["traffic"]["connections"]], [f"{name}:{port}"])
            refused = [one for one in report["violations"] if one["layer"] == "network"]
            self.assertEqual(refused, [])
            # TLS is the program's own: without the authority it trusts nobody there.
            done, _ = self.exec(network, *command)
            self.assertEqual((done.returncode, done.stdout), (1, ""), done)

    def test_requests(self):
        self.both(FETCH, "-c", REQUESTS, "http://{host}/page")

    def test_httpx(self):
        self.both(FETCH, "-c", HTTPX, "http://{host}/page")

    def test_node_http(self):
        self.both("node", "-e", NODE_HTTP, "http://{host}/page")

    def test_node_fetch(self):
        self.both("node", "-e", NODE_FETCH, "http://{host}/page")

    def test_rust(self):
        # Where it is a shim, it looks for itself in the user's home.
        home = {**os.environ, "HOME": pwd.getpwuid(os.geteuid()).pw_dir} if os.geteuid() == 0 else dict(os.environ)
        rustc = shutil.which("rustc")
        works = rustc and subprocess.run([rustc, "--version"], env=home, capture_output=True, check=False).returncode == 0
        self.need(works, "there is no rustc")
        source = self.work / "client.rs"
        source.write_text(RUST, encoding="utf-8")
        subprocess.run([rustc, "-o", self.work / "client", source], check=True, cwd=self.work, env=home)
        self.both(self.work / "client", "{host}")

    def test_go(self):
        # With no file of its own to read or write.
        command = (fixtures.RCLONE, "--config=", "--retries=1", "--low-level-retries=1", "copyurl", "--stdout", "http://{host}/page")
        self.both(*command)
        # By its own resolver, which it says.
        for name in ("web.internal", "a.pages.internal", "other.internal"):
            self.assertIn("Go's", self.reaches(*command, name=name, env=("GODEBUG=netdns=go+1",)))

    def test_java(self):
        java, javac = shutil.which("java"), shutil.which("javac")
        self.need(java and javac, "there is no Java")
        source = self.work / "Client.java"
        source.write_text(JAVA, encoding="utf-8")
        subprocess.run([javac, source], check=True, cwd=self.work)
        self.both(java, "-cp", self.work, "Client", "{host}")

    def test_musl(self):
        compiler = shutil.which("cc")
        self.need(compiler, "there is no C compiler")
        source = self.work / "client.c"
        source.write_text(C, encoding="utf-8")
        library, include = fixtures.musl()
        # Whatever headers and libraries the host has for its own libc.
        of_compiler = subprocess.run([compiler, "-print-libgcc-file-name"], check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run([compiler, "-nostdinc", "-isystem", include, "-nostdlib", "-static", "-no-pie", "-fno-stack-protector",
                        "-o", self.work / "client", library / "crt1.o", library / "crti.o", source, library / "libc.a", of_compiler,
                        library / "crtn.o"], check=True, cwd=self.work)
        self.both(self.work / "client", "{host}")

    def fetched(self, path):
        """What the fetch server makes of a page, with these programs in view."""
        network = f'allow = ["web.internal:{self.port}"]\nhosts = {{ "web.internal" = "127.0.0.1" }}'
        profile = self.profile(f'{network}\n[environment]\nset = {{ PATH = "{path}" }}')
        server = fixtures.fetch()
        # By itself it fetches from public addresses only, and a name's address in a cell is one of the loopback.
        server.command.append("--allow-private-ips")
        with self.open_celled(server, f"--profile={profile}") as peer:
            peer.open()
            for number, name in enumerate(["page", "page.html"], 1):
                line = peer.call(number, "fetch", {"url": f"http://web.internal:{self.port}/{name}"}, timeout=60)
                self.assertIn("the page", case.text_of(line), line)
            line = peer.call(9, "fetch", {"url": f"http://other.internal:{self.port}/page"}, timeout=60)
            self.assertTrue(case.is_error(line), line)

    def test_the_fetch_server(self):
        self.fetched("/nowhere")

    def test_the_fetch_server_with_npm_in_view(self):
        npm = shutil.which("npm")
        self.need(npm, "there is no npm")
        self.fetched(f"{os.path.dirname(npm)}:/usr/bin:/bin")

    def test_postgresql(self):
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
        self.need(programs, "there is no PostgreSQL")
        if os.geteuid() not in {user.pw_uid for user in pwd.getpwall()}:
            self.skipTest("PostgreSQL wants a user with a name")
        programs = pathlib.Path(programs[-1]).parent
        place = self.directory("postgresql")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        if user:
            os.chown(place, NOBODY, NOBODY)
            self.work.chmod(0o755)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        start = {**quiet, "cwd": "/", "env": self.base, **user}
        data = place / "data"
        subprocess.run([programs / "initdb", "--no-sync", "--auth=trust", "--username=tester", "-D", data], check=True, **start)
        server = subprocess.Popen([programs / "postgres", "-D", data, "-k", place, "-p", str(port), "-F"], **start)
        try:
            path = place / f".s.PGSQL.{port}"
            until = time.monotonic() + 20
            ready = [programs / "pg_isready", "-q", "-h", place, "-p", str(port), "-t", "1"]
            while subprocess.run(ready, check=False, env=self.base).returncode and time.monotonic() < until:
                time.sleep(0.05)
            ask = [programs / "psql", "-X", "-A", "-t", "-U", "tester", "-p", str(port), "-d", "postgres", "-c", "select 6 * 7"]
            for network, host, door in (
                    (f'allow-unix = ["{path}"]', place, str(path)),
                    (f'allow = ["127.0.0.1:{port}"]', "127.0.0.1", f"127.0.0.1:{port}")):
                done, report = self.exec(network, *ask, "-h", host)
                self.assertEqual((done.returncode, done.stdout), (0, "42\n"), done)
                self.assertEqual([one["to"] for one in report["traffic"]["connections"]], [door])
                self.assertEqual([one for one in report["violations"] if one["layer"] == "network"], [])
                # With a door of the other kind alone there is no way.
                done, _ = self.exec(network, *ask, "-h", "127.0.0.1" if host == place else place)
                self.assertNotEqual(done.returncode, 0, done)
        finally:
            server.terminate()
            server.wait()

