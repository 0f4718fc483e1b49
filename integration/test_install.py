"""Packages that npm and pip fetch in cells: the public registries' own, and hostile ones of a registry on this host.

Neighbours: `registry` is that registry; `store` has unit tests. Never: lets a package's code run outside of a cell.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess

import case
import fixtures
import registry
import wire

TOKEN = "npm-token-of-the-person"
# What says which certificates this host trusts, and where its registries are.
HOST = {name: value for name, value in os.environ.items()
        if name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT")}


class Install(case.Case):
    """What all have in common."""

    def setUp(self):
        super().setUp()
        self.data = self.directory("data")
        self.base = {**self.base, **HOST, "XDG_DATA_HOME": str(self.data)}

    def tearDown(self):
        # npm makes it when it is asked where its registry is.
        shutil.rmtree(self.home / ".npm", ignore_errors=True)
        self.toolcell("store", "gc", "--unused", "0s")
        self.assertEqual(sorted(path.name for path in (self.data / "toolcell/store").iterdir()), ["lock", "names"])
        super().tearDown()

    def toolcell(self, *arguments, status=0):
        """Runs it, and gives what it printed and said."""
        if arguments[0] in ("install", "exec") and not self.full:
            arguments = (arguments[0], "--floor=no-cgroup", *arguments[1:])
        ran = subprocess.run([case.TOOLCELL, *arguments], capture_output=True, text=True, check=False, env=self.base,
                             stdin=subprocess.DEVNULL)
        self.assertEqual(ran.returncode, status, ran.stdout + ran.stderr)
        return ran.stdout, ran.stderr

    def entries(self):
        """What `store list` says."""
        return json.loads(self.toolcell("store", "list", "--json")[0])

    def call(self, tool, arguments, *command):
        """What a tool of a server in cells answers, and what was said."""
        floor = [] if self.full else ["--floor=no-cgroup"]
        with wire.Wire([case.TOOLCELL, "run", *floor, f"--audit={self.audit}", *command], self.base) as peer:
            peer.open()
            line = peer.call(1, tool, arguments)
            return case.text_of(line), str(peer.stderr)


class Public(Install):
    """Needs the registries of this host's package managers."""

    only = case.once()

    def test_npx(self):
        folder = self.directory("folder")
        (folder / "file").write_text("hello", encoding="utf-8")
        command = [f"--read={folder}", "--", "npx", "-y", "@modelcontextprotocol/server-filesystem@2026.8.31", str(folder)]
        for said in ("it is fetched now, once", ""):
            text, stderr = self.call("read_text_file", {"path": str(folder / "file")}, *command)
            self.assertEqual(text, "hello")
            self.assertIn(said, stderr)
        self.assertNotIn("fetched", stderr)
        entry, = self.entries()
        self.assertEqual(entry["version"], "2026.8.31")
        self.assertTrue(all(each["integrity"].startswith("sha512-") for each in entry["integrity"]))

    def test_uvx(self):
        for _ in range(2):
            text, _stderr = self.call("get_current_time", {"timezone": "UTC"}, "--", "uvx", "mcp-server-time==2026.10.19")
            self.assertEqual(json.loads(text)["timezone"], "UTC")
        entry, = self.entries()
        self.assertTrue(all(each["integrity"].startswith("sha256:") for each in entry["integrity"]))
        self.assertEqual(self.toolcell("store", "verify")[0].count("as it was installed"), 1)


class Hostile(Install):
    """A registry of the test's own."""

    def setUp(self):
        super().setUp()
        (self.home / "id_rsa").touch()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.registry = registry.Registry(self.home, self.listener.getsockname()[1])
        self.registry.publish_npm("1.0.0")
        self.registry.publish_pypi("1.0")
        place = self.registry.url.removeprefix("http:")
        (self.home / ".npmrc").write_text(f"registry={self.registry.url}/\n{place}/:_authToken={TOKEN}\n", encoding="utf-8")
        self.base["PIP_INDEX_URL"] = f"{self.registry.url}/simple"
        self.base["CANARY"] = "of the environment"
        self.before = self.census()

    def tearDown(self):
        self.registry.close()
        self.listener.close()
        for name in (".npmrc", "id_rsa"):
            (self.home / name).unlink()
        shutil.rmtree(self.home / ".npm", ignore_errors=True)
        census = self.census()
        for what in ("temporary files", "descriptors"):
            self.before[what] = census[what]
        super().tearDown()

    def tree(self):
        """Where the files of the one entry are."""
        entry, = self.entries()
        return self.data / "toolcell/store" / entry["id"] / "tree"

    def test_scripts_are_not_run(self):
        printed, said = self.toolcell("install", "npm:evil")
        self.assertIn("evil is 1.0.0", printed)
        self.assertIn("install scripts were not run: `evil`", said)
        self.assertFalse(list(self.tree().rglob("seen.json")))
        self.assertEqual(self.registry.authorized, [])
        text, _said = self.call("where", {}, "--", "npx", "-y", "evil")
        self.assertIn("node_modules/evil/server.js", text)

    def test_a_script_that_is_allowed_sees_nothing(self):
        self.toolcell("install", "--allow-scripts", "evil", "npm:evil")
        seen = json.loads(next(self.tree().rglob("seen.json")).read_text(encoding="utf-8"))
        self.assertNotIn("id_rsa", seen["home"])
        self.assertEqual(seen["home"][0], "ENOENT")
        self.assertIn(seen["port"], ("EACCES", "ECONNREFUSED"))
        self.assertEqual(seen["secret"], "")
        self.assertEqual(self.entries()[0]["scripts"], ["evil"])

    def test_what_was_fetched_stays(self):
        self.toolcell("install", "npm:evil")
        asked = len(self.registry.asked)
        self.registry.publish_npm("2.0.0")
        self.call("where", {}, "--", "npx", "-y", "evil")
        self.assertEqual(len(self.registry.asked), asked)
        self.assertEqual([entry["version"] for entry in self.entries()], ["1.0.0"])
        self.toolcell("install", "npm:evil")
        named = {entry["version"]: entry["packages"] for entry in self.entries()}
        self.assertEqual(named, {"1.0.0": [], "2.0.0": ["npm:evil"]})
        self.toolcell("store", "gc")
        self.assertEqual([entry["version"] for entry in self.entries()], ["2.0.0"])

    def test_what_node_compiles_is_kept(self):
        # The host's own may be too old for it.
        self.base["PATH"] = f"{fixtures.PINNED_NODE.parent}:{self.base['PATH']}"
        self.toolcell("install", "npm:evil")
        place = self.tree() / "node_modules/.toolcell-compiled"
        self.assertTrue([path for path in place.rglob("*") if path.is_file()])
        self.assertFalse(any(path.stat().st_mode & 0o222 for path in place.rglob("*")))
        text, _said = self.call("where", {}, "--", "npx", "-y", "evil")
        self.assertEqual(text.split()[1], str(place))
        self.assertEqual(self.toolcell("store", "verify")[0].count("as it was installed"), 1)

    def test_an_archive_with_another_hash(self):
        for path in list(self.registry.files):
            if path.endswith(".tgz"):
                self.registry.files[path] = registry.tarball({"package.json": "{}"})
        said = self.toolcell("install", "npm:evil", status=1)[1]
        self.assertIn("EINTEGRITY", said)
        self.assertIn("`npm` ended with exit status", said)
        self.assertEqual(self.entries(), [])
        self.assertEqual(self.toolcell("store", "verify")[0], "the store is empty\n")

    def test_python(self):
        printed, _said = self.toolcell("install", "pypi:evil")
        self.assertIn("evil is 1.0", printed)
        program = pathlib.Path(printed.splitlines()[1].strip())
        self.assertEqual(program.name, "evil-server")
        self.assertFalse(program.stat().st_mode & 0o222)
        ran = self.toolcell("exec", "--", "uvx", "--from", "evil", "evil-server")
        self.assertEqual(ran[0].split()[0], "here")
        source = next(self.tree().rglob("evil.py"))
        source.chmod(0o644)
        source.write_text("def main():\n    print('other')\n", encoding="utf-8")
        told = self.toolcell("store", "verify", status=118)[0]
        self.assertIn("differs in", told)
        self.assertIn("evil", told)

    def test_a_package_that_would_choose_what_is_shown(self):
        self.registry.publish_pypi("2.0", {"data/pyvenv.cfg": f"home = {self.home}\n"})
        said = self.toolcell("install", "pypi:evil", status=1)[1]
        self.assertIn("a package brings settings of its own for the environment (`pyvenv.cfg`)", said)
        self.assertEqual(self.entries(), [])

    def test_what_is_not_there(self):
        for package, word in (("npm:none", "E404"), ("pypi:none", "404")):
            said = self.toolcell("install", package, status=1)[1]
            self.assertIn(word, said)
        said = self.toolcell("exec", "--", "npx", "evil", status=127)[1]
        self.assertIn("hint: toolcell install npm:evil", said)
        self.toolcell("install", "npm:evil")
        said = self.toolcell("exec", "--", "npx", "-p", "evil", "other", status=127)[1]
        self.assertIn("`npm:evil` has no program `other`", said)

    def test_a_tool_may_not_change_the_store(self):
        self.toolcell("install", "npm:evil")
        floor = [] if self.full else ["--floor=no-cgroup"]
        said = self.toolcell("exec", f"--write={self.work}", "--", "npx", "evil", status=120)[1]
        self.assertIn("what toolcell has installed lies in it", said)
        store = self.data / "toolcell/store"
        ran = subprocess.run([case.TOOLCELL, "exec", *floor, f"--write={self.work}", "--", "/bin/sh", "-c", f"ls {store}/*; touch {store}/x"],
                             capture_output=True, text=True, check=False, env=self.base, stdin=subprocess.DEVNULL)
        self.assertNotEqual(ran.returncode, 0)
        self.assertNotIn("names", ran.stdout)
        self.assertFalse((store / "x").exists())
