"""Real servers are locked, without a false alarm, and run as locked; what changes in their packages is refused.

Neighbours: `it::session::locked` has a server that lies. Never: changes a package of the fixtures.
"""

import json
import pathlib
import shutil
import subprocess

import case
import fixtures
import wire


class Lock(case.Case):
    """Each server alone."""

    def lock(self, server, *options):
        """`toolcell lock` for a server: exit status, output."""
        told = [f"--env={name}={value}" for name, value in server.env.items()]
        floor = [] if self.full else ["--floor=no-cgroup"]
        done = subprocess.run(
            [case.TOOLCELL, "lock", *map(str, server.options), *told, *floor, f"--audit={self.audit}",
             f"--lock={self.work / 'toolcell.lock'}", *options, "--", *server.command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=self.base, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def run_locked(self, server):
        """A session with the locked server."""
        floor = [] if self.full else ["--floor=no-cgroup"]
        options = [*floor, f"--audit={self.audit}", f"--lock={self.work / 'toolcell.lock'}"]
        return wire.Wire(server.wrapped(case.TOOLCELL, *options), self.base)

    def holds(self, server, least):
        """Nothing of it is flagged, and all that it lists is as locked."""
        status, told = self.lock(server)
        self.assertEqual(status, 0, told)
        self.assertNotIn("flagged", told)
        self.assertEqual(self.lock(server, "--check")[0], 0)
        with self.run_locked(server) as peer:
            peer.open()
            listed = json.loads(peer.request(1, "tools/list"))["result"]["tools"]
            self.assertGreaterEqual(len(listed), least)
        return listed

    def test_everything(self):
        self.holds(fixtures.everything(), 10)

    def test_filesystem(self):
        self.holds(fixtures.filesystem(self.directory("files")), 10)

    def test_memory(self):
        self.holds(fixtures.memory(self.directory("memory")), 8)

    def test_git(self):
        repository = self.directory("repository")
        subprocess.run(["git", "init", "--quiet", repository], check=True, env=self.base)
        self.holds(fixtures.git(repository), 10)

    def test_time(self):
        self.holds(fixtures.clock(), 2)

    def test_fetch(self):
        self.holds(fixtures.fetch(), 1)

    def test_sqlite(self):
        self.holds(fixtures.sqlite(self.directory("data")), 5)

    def test_one_byte_of_a_package(self):
        """A copy of the servers' packages, of which one is changed."""
        modules = fixtures.BIN.parent
        copy = self.directory("copy") / "node_modules"
        shutil.copytree(modules, copy, symlinks=True)
        server = fixtures.Server([str(copy / ".bin" / "mcp-server-everything")])
        self.holds(server, 10)
        manifest = pathlib.Path(copy, "zod", "package.json")
        text = manifest.read_text(encoding="utf-8")
        manifest.write_text(text.replace('"version"', ' "version"', 1), encoding="utf-8")
        status, told = self.lock(server, "--check")
        self.assertEqual(status, 118, told)
        self.assertIn(f"+ {copy}/zod ", told)
        with self.run_locked(server) as peer:
            peer.open()
            answer = peer.call(1, "echo", {"message": "hello"})
            self.assertIn("the program of server `mcp-server-everything` is not as it was locked", case.text_of(answer))
        manifest.write_text(text, encoding="utf-8")
        with self.run_locked(server) as peer:
            peer.open()
            self.assertIn("hello", case.text_of(peer.call(1, "echo", {"message": "hello"})))
