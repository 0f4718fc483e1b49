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
                self.send_response(200 if body is not None else 404)
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
