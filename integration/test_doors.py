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
import subprocess
import threading
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
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def tearDown(self):
        # Before what is left is counted.
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        super().tearDown()

    def profile(self, network):
        """A profile on top of `default`."""
        path = self.work / "doors.toml"
        path.write_text(f'extends = "default"\n[network]\n{network}\n', encoding="utf-8")
        return path

    def exec(self, network, *command):
        """A command in a cell, and its report."""
        report = self.work / "report.json"
        floor = () if self.full else ("--floor=no-cgroup",)
        done = subprocess.run(
            [case.TOOLCELL, "exec", *floor, "--memory=2GiB", f"--profile={self.profile(network)}", f"--report={report}",
             "--read", str(fixtures.FIXTURES), "--read", str(self.work), "--", *map(str, command)],
            capture_output=True, text=True, check=False, env=self.base, stdin=subprocess.DEVNULL, cwd=self.work)
        return done, json.loads(report.read_text(encoding="utf-8"))

    def reaches(self, *command, name="web.internal"):
        """The program gets the page through the door, and nothing of a host that has none."""
        network = f'allow = ["web.internal:{self.port}"]\nhosts = {{ "web.internal" = "127.0.0.1" }}'
        filled = [str(word).replace("{host}", f"{name}:{self.port}") for word in command]
        done, report = self.exec(network, *filled)
        if name == "web.internal":
            self.assertEqual((done.returncode, "the page" in done.stdout), (0, True), done)
            self.assertTrue(report["traffic"]["connections"])
        else:
            self.assertNotEqual(done.returncode, 0, done)
            objects = [one["object"] for one in report["violations"] if one["layer"] == "network"]
            self.assertIn(name, objects)

    def both(self, *command):
        """The same with a name that is not allowed."""
        self.reaches(*command)
        self.reaches(*command, name="other.internal")

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
        self.both(fixtures.RCLONE, "--config=", "--retries=1", "--low-level-retries=1", "copyurl", "--stdout", "http://{host}/page")

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

