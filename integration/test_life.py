"""How it ends: after a thousand calls, when the client goes, and when any process of it is killed in mid-call.

Neighbours: `case` counts before and after each of these as well; `host` counts.
Never: waits longer than the promise allows.
"""

import json
import os
import resource
import signal
import subprocess
import time

import case
import fixtures
import host
import wire


class Life(case.Case):
    """Our server in cells."""

    def in_call(self, peer, tool="hang", ident="hung", **arguments):
        """Starts a call and comes back when the tool is running."""
        peer.post(ident, "tools/call", {"name": tool, "arguments": arguments, "_meta": {"progressToken": ident}})
        peer.wait_for(lambda m: m.get("params", {}).get("progressToken") == ident, what="progress")

    def family(self, peer):
        """Supervisor, launcher, and the init of each cell that is in use."""
        table = {pid: each for pid, each in host.processes().items() if each[1] not in "ZX"}
        supervisor = peer.process.pid
        launchers = host.launchers(supervisor, table)
        self.assertEqual(len(launchers), 1, f"children of the supervisor: {host.children(supervisor, table)}")
        return supervisor, launchers[0], host.at_work(launchers[0])

    def assert_gone(self, timeout=2.0):
        """Nothing runs, is mounted, or is in a cgroup; the directories themselves the next start may remove."""
        def gone():
            host.reap()
            return not host.descendants()
        self.assertTrue(host.until(gone, timeout), f"still running: {host.descendants()}")
        self.assertEqual(host.mounts(), self.before["mounts"])

    def assert_recorded(self, ended):
        """Each call under way began in the log, and ended there unless it was the supervisor that was killed."""
        records = self.records()
        calls = {event: {each["call"]["id"] for each in records
                         if each["event"] == event and each["call"]["target"] in ("hang", "stubborn")}
                 for event in ("started", "finished")}
        self.assertEqual(len(calls["started"]), 2)
        self.assertEqual(calls["finished"], calls["started"] if ended else set())

    def assert_clean_start(self):
        """The next start works and has swept what was left."""
        with self.open_celled(fixtures.tiny()) as peer:
            peer.open()
            self.assertEqual(case.text_of(peer.call(1, "echo", {"text": "again"})), "again")
            # The new session may have directories of its own; those of the dead one are gone.
            stale = [name for name in self.stale if os.path.isdir(name)]
            self.assertEqual(stale, [])

    def killed(self, which):
        """Kills one process of a session with two calls under way."""
        with self.open_celled(fixtures.tiny(), "--jobs=2") as peer:
            peer.open()
            self.in_call(peer, ident="one")
            self.in_call(peer, "stubborn", ident="two")
            supervisor, launcher, inits = self.family(peer)
            self.assertGreaterEqual(len(inits), 2)
            self.stale = host.cgroup_directories() - self.before["cgroup directories"]
            yield peer, {"supervisor": supervisor, "launcher": launcher, "init": inits[-1]}[which]

    def test_supervisor_killed(self):
        for peer, pid in self.killed("supervisor"):
            os.kill(pid, signal.SIGKILL)
            peer.wait_exit(2)
            self.assert_gone()
            self.assert_recorded(ended=False)
        self.assert_clean_start()

    def test_supervisor_and_launcher_killed_at_once(self):
        for peer, pid in self.killed("supervisor"):
            launcher = host.launchers(pid)[0]
            # Stopped first, so that neither sees the other die.
            for each in (launcher, pid):
                os.kill(each, signal.SIGSTOP)
            for each in (launcher, pid):
                os.kill(each, signal.SIGKILL)
            peer.wait_exit(2)
            self.assert_gone()
            self.assert_recorded(ended=False)
        self.assert_clean_start()

    def test_launcher_killed(self):
        for peer, pid in self.killed("launcher"):
            os.kill(pid, signal.SIGKILL)
            # Whether the supervisor goes on or gives up: no call of a dead launcher may go unanswered or live on.
            for ident in ("one", "two"):
                try:
                    self.assertTrue(case.is_error(peer.answer(ident, 5)))
                except wire.Closed:
                    pass
            peer.close_stdin()
            peer.wait_exit(2)
            self.assert_gone()
            self.assert_recorded(ended=True)
        self.assert_clean_start()

    def test_init_killed(self):
        for peer, pid in self.killed("init"):
            os.kill(pid, signal.SIGKILL)
            answered = peer.wait_for(lambda m: m.get("id") in ("one", "two"), 5, "answer of the killed cell")
            self.assertTrue(case.is_error(answered), answered)
            # The other cell lives on, and the place of the dead one is free.
            self.assertEqual(case.text_of(peer.call("after", "echo", {"text": "fine"}, timeout=10)), "fine")
            self.assertTrue(host.at_work(self.family(peer)[1]), "the other call's cell is gone")
        self.assert_recorded(ended=True)
        self.assert_clean_start()

    def test_descriptors_run_out(self):
        with self.open_celled(fixtures.tiny(), "--jobs=8") as peer:
            peer.open()
            self.assertEqual(case.text_of(peer.call("first", "echo", {"text": "before"})), "before")
            supervisor, launcher, _ = self.family(peer)
            for pid in (supervisor, launcher):
                before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                for room in range(1, 24):
                    host.until(lambda: host.at_rest(launcher), 5)
                    used = host.descriptors(pid)
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + room, before[1]))
                    idents = [f"{pid} {room} {number}" for number in range(4)]
                    for ident in idents:
                        peer.post(ident, "tools/call", {"name": "echo", "arguments": {"text": ident}})
                    for ident in idents:
                        line = peer.answer(ident, 10)
                        self.assertTrue(case.is_error(line) or case.text_of(line) == ident, line)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
                again = peer.call(f"after {pid}", "echo", {"text": "after"})
                self.assertEqual(case.text_of(again), "after")
        records = [json.loads(line) for line in self.audit.read_text(encoding="utf-8").splitlines()]
        started = {each["call"]["id"] for each in records if each["event"] == "started"}
        self.assertEqual(started, {each["call"]["id"] for each in records if each["event"] == "finished"})

    def cancel(self, peer, ident):
        """Cancels a call."""
        peer.notify("notifications/cancelled", {"requestId": ident})

    def test_client_goes_away_in_mid_call(self):
        with self.open_celled(fixtures.tiny(), "--jobs=3") as peer:
            peer.open()
            for number, tool in enumerate(("hang", "stubborn", "pause")):
                self.in_call(peer, tool, ident=f"call {number}", **({"seconds": 60} if tool == "pause" else {}))
            start = time.monotonic()
            peer.close_stdin()
            took = peer.wait_exit(1)
            self.assert_gone(max(0.0, 1 - took))
            self.assertLess(time.monotonic() - start, 1.0)
            self.assertEqual(peer.process.returncode, 0, peer.stderr)

    def test_client_goes_away_with_calls_in_the_queue(self):
        with self.open_celled(fixtures.tiny(), "--jobs=1") as peer:
            peer.open()
            self.in_call(peer, "hang")
            for number in range(20):
                peer.post(number, "tools/call", {"name": "echo", "arguments": {}})
            peer.close_stdin()
            self.assertLess(peer.wait_exit(1), 1)
            self.assert_gone(0.5)

    def test_client_that_stops_reading(self):
        # Nobody reads stdout and stdin stays open: the write end breaks once the reader has closed the other.
        reading, writing = os.pipe()
        with subprocess.Popen(self.wrapped(fixtures.tiny()), stdin=subprocess.PIPE, stdout=writing,
                              stderr=subprocess.DEVNULL, env=self.base) as process:
            os.close(writing)
            process.stdin.write(wire.encode({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
                "protocolVersion": wire.LEGACY, "capabilities": {}, "clientInfo": wire.CLIENT}}))
            process.stdin.flush()
            os.read(reading, 1 << 16)
            for message in ({"jsonrpc": "2.0", "method": "notifications/initialized"},
                            {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                             "params": {"name": "spew", "arguments": {"size": 4_000_000}}}):
                process.stdin.write(wire.encode(message))
            process.stdin.flush()
            os.read(reading, 1)
            os.close(reading)
            process.wait(3)
        self.assert_gone()

    def test_terminated(self):
        with self.open_celled(fixtures.tiny()) as peer:
            peer.open()
            self.in_call(peer, "stubborn")
            peer.process.terminate()
            peer.wait_exit(1)
            self.assert_gone(0.5)

    def test_cancellation_kills_only_that_cell(self):
        with self.open_celled(fixtures.tiny(), "--jobs=2") as peer:
            peer.open()
            self.in_call(peer, "pause", ident="kept", seconds=1.5)
            _, launcher, before = self.family(peer)
            self.in_call(peer, "stubborn", ident="gone")
            both = host.at_work(launcher)
            self.cancel(peer, "gone")
            self.assertTrue(host.until(lambda: len(host.at_work(launcher)) < len(both), 1), "the cell lives on")
            self.assertTrue(set(before) & set(host.at_work(launcher)), "the other call's cell is gone")
            self.assertEqual(case.text_of(peer.answer("kept")), "slept")
            self.assertEqual([line for line in peer.lines if json.loads(line).get("id") == "gone"], [])

    def test_cancellation_of_a_call_that_waits(self):
        with self.open_celled(fixtures.tiny(), "--jobs=1") as peer:
            peer.open()
            self.in_call(peer, "pause", ident="first", seconds=0.5)
            peer.post("second", "tools/call", {"name": "echo", "arguments": {"text": "x"}})
            self.cancel(peer, "second")
            peer.answer("first")
            self.assertEqual(case.text_of(peer.call("third", "echo", {"text": "y"})), "y")
            self.assertEqual([line for line in peer.lines if json.loads(line).get("id") == "second"], [])

    def test_daemon_is_gone_before_the_answer_is_old(self):
        with self.open_celled(fixtures.tiny()) as peer:
            peer.open()
            _, launcher, _ = self.family(peer)
            # The call's arguments are checked by the list, and the process that gave it stays a while for further pages.
            peer.post("list", "tools/list", {})
            peer.answer("list")
            self.assertTrue(host.until(lambda: host.at_rest(launcher), 5), host.descendants(launcher))
            self.assertEqual(case.text_of(peer.call(1, "daemon")), "left one behind")
            self.assertTrue(host.until(lambda: host.at_rest(launcher), 1), host.descendants(launcher))

    def test_thousand_calls(self):
        with self.open_celled(fixtures.tiny()) as peer:
            peer.open()
            supervisor, launcher, _ = self.family(peer)

            def census():
                # Cells are reaped behind their answers: what is compared is the state of rest, in which one waits.
                host.until(lambda: list(host.descendants(launcher).values()) == ["toolcell-ready"], 2)
                return {"supervisor": host.descriptors(supervisor), "launcher": host.descriptors(launcher),
                        "processes": len(host.descendants()), "mounts": len(host.mounts()),
                        "cgroups": len(host.cgroup_directories()), "files": len(host.files(self.temp, self.home))}

            def rest():
                # A cell may have ended a moment before the supervisor lets go of what it held of it.
                seen = [census()]
                host.until(lambda: seen.append(census()) or seen[-1] == seen[-2], 5)
                return seen[-1]
            early = None
            for number in range(1, 1001):
                line = peer.call(number, "echo", {"text": str(number)})
                self.assertEqual(case.text_of(line), str(number))
                if number == 10:
                    early = rest()
            self.assertEqual(early, rest())
