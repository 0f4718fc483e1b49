"""What every test starts from: a place to work, the same server bare and in cells, and a census that must come even.

Neighbours: `fixtures` names the servers, `wire` talks to them, `host` counts.
Never: knows what a particular test is about.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest

import fixtures
import host
import wire

TOOLCELL = os.environ.get("TOOLCELL", "")
# An administrator's closed directories, one a controller: a process in them may make none of its own.
CLOSED = [path for path in os.environ.get("OUTSIDE_CLOSED", "").split(":") if path]
REFUSED = 121


class Missing(Exception):
    """Something of the host is missing that the test needs, and `TOOLCELL_EXPECT_HOST=full` says it must not be."""


def reaches_full():
    """Whether a cell with every layer can be had on this host as this user."""
    return subprocess.run([TOOLCELL, "exec", "--floor=full", "--", "/bin/true"], stdin=subprocess.DEVNULL,
                          capture_output=True, check=False).returncode == 0


def once():
    """`only` for tests that take long and are about messages: where root runs everything twice, one run is enough."""
    return "root" if os.environ.get("OUTSIDE_AS") and not os.environ.get("OUTSIDE_LONG") else None


def long():
    """`only` for tests that say in another way what shorter ones say: `scripts/conformance` runs them, nobody else."""
    return None if os.environ.get("OUTSIDE_LONG") else "long"


class Case(unittest.TestCase):
    """One test."""

    maxDiff = 4000
    full = None
    # `user`: the test has no meaning for root, and is left out, not skipped.
    only = None

    @classmethod
    def setUpClass(cls):
        if Case.full is None:
            Case.full = reaches_full()

    def setUp(self):
        # Not below /tmp: a cell has its own there, and most grants of real users lie elsewhere.
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="outside-", dir=os.environ.get("OUTSIDE_WORK", "/var/tmp")))
        self.home = self.work / "home"
        self.temp = self.work / "tmp"
        self.audit = self.work / "audit.jsonl"
        for directory in (self.home, self.temp):
            directory.mkdir()
        self.base = {"PATH": fixtures.search_path(), "HOME": str(self.home), "TMPDIR": str(self.temp),
                     "LANG": "C.UTF-8"}
        # The first run on a host makes the key of the installation, which stays.
        subprocess.run([TOOLCELL, "audit", "key"], env=self.base, stdout=subprocess.DEVNULL, check=True)
        self.servers = []
        self.before = self.census()

    def serve(self, server):
        """Lets a host of the test's own answer as long as the test; its port."""
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.servers.append((server, thread))
        return server.server_address[1]

    def tearDown(self):
        # Before what is left is counted.
        for server, thread in self.servers:
            server.shutdown()
            thread.join()
            server.server_close()
        host.until(self.settled, 2)
        after = self.census()
        try:
            for what, had in self.before.items():
                self.assertEqual(had, after[what], f"{what}: not as before the test")
        finally:
            self.kill_leftovers()
            shutil.rmtree(self.work, ignore_errors=True)

    def kill_leftovers(self):
        """Ends what a failed test left running, so that the next one is not blamed for it."""
        for pid in host.descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        host.until(lambda: (host.reap(), not host.descendants())[1], 2)

    def settled(self):
        """Reaps what was orphaned; whether nothing of a cell is left."""
        host.reap()
        return self.census() == self.before

    def census(self):
        """What must be the same before and after."""
        return {
            "processes": sorted(host.descendants().values()),
            "mounts": host.mounts(),
            "cgroup directories": host.cgroup_directories(),
            "temporary files": host.files(self.temp, self.home),
            "descriptors": host.descriptors(os.getpid()),
        }

    def need(self, holds, what):
        """Skips unless the host has what the test needs; or fails, where the host is said to have everything."""
        if not holds:
            if os.environ.get("TOOLCELL_EXPECT_HOST") == "full":
                raise Missing(what)
            self.skipTest(what)

    def need_full(self):
        """The test is about cgroup limits."""
        self.need(self.full, "this host and user do not reach the floor `full`: see `toolcell doctor`")

    def directory(self, name):
        """An empty directory, the same path each time."""
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def wrapped(self, server, *options):
        """The command line of `server` in cells, at the strongest floor the host has."""
        floor = () if self.full else ("--floor=no-cgroup",)
        audit = () if any(each.startswith("--audit=") for each in options) else (f"--audit={self.audit}",)
        return server.wrapped(TOOLCELL, *floor, *audit, *options)

    def open_bare(self, server, answers=None):
        """The server alone."""
        peer = wire.Wire(server.bare(), {**self.base, **server.env}, answers=answers)
        peer.bare = True
        return peer

    def open_celled(self, server, *options, answers=None, env=None):
        """The server in cells. Its environment is not this process's: it is told by option."""
        return wire.Wire(self.wrapped(server, *options), {**self.base, **(env or {})}, answers=answers)

    def assert_same(self, make, script, answers=None, options=()):
        """Runs `script(wire)` → [(what, value)] against the bare server and in cells, and compares each value.

        `make()` prepares the server's world afresh for each of the two and gives the server; `options` are for toolcell.
        """
        with self.open_bare(make(), answers) as peer:
            bare = script(peer)
        with self.open_celled(make(), *options, answers=answers) as peer:
            celled = script(peer)
            talk = peer.stderr
        self.assertTrue(bare, "the script compared nothing")
        self.assertEqual([what for what, _ in bare], [what for what, _ in celled])
        self.assert_all_equal(bare, celled, talk)

    def assert_all_equal(self, bare, celled, talk=""):
        """Compares two lists of (what, value) and tells of every difference, not of the first alone."""
        different = [f"{what}:\n  bare    {expected!r:.2000}\n  in cell {found!r:.2000}"
                     for (what, expected), (_, found) in zip(bare, celled, strict=True) if expected != found]
        self.assertFalse(different, "\n".join(["differs in a cell", *different, f"stderr: {talk}"]))

    def decode(self, line):
        """A line's message."""
        return json.loads(line)

    def records(self):
        """The audit log."""
        return [json.loads(line) for line in self.audit.read_text(encoding="utf-8").splitlines()]


# Tasks outlive a call: toolcell does not offer them unless a server keeps its state. Nothing else of a handshake changes.
NOT_OFFERED = (b',"tasks":{"list":{},"cancel":{},"requests":{"tools":{"call":{}}}}',)


def offered(peer, line):
    """The answer to a handshake, without what is not offered through toolcell."""
    for part in NOT_OFFERED if peer.bare else ():
        line = line.replace(part, b"")
    return line


def text_of(line):
    """All text of an answer: of its result's content, or of its error."""
    message = json.loads(line)
    if "error" in message:
        return message["error"]["message"]
    return "\n".join(block.get("text", "") for block in message["result"].get("content", []))


def is_error(line):
    """Whether a call's answer tells of a failure."""
    message = json.loads(line)
    return "error" in message or message["result"].get("isError") is True
