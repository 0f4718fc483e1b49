"""What a client reads when a server fails, breaks the protocol or hits a limit: which, why, and what to change.

Neighbours: `servers/tiny` misbehaves; `test_life` looks at what is left afterwards.
Never: fixes the wording of a message; only the facts in it that its reader needs.
"""

import json
import re
import socket

import case
import fixtures
import wire

INITIALIZE = {"protocolVersion": wire.LEGACY, "capabilities": {}, "clientInfo": wire.CLIENT}

PROFILE = """\
description = "Little of everything."
extends = "default"

[limits]
output = "1MiB"
file-size = "1MiB"
open-files = 64
"""


class Tiny(case.Case):
    """Our server in cells."""

    def one(self, tool, arguments=None, options=(), timeout=30, ident=1):
        """One call in a session of its own, and then a harmless one: the first answer."""
        with self.open_celled(fixtures.tiny(), *options) as peer:
            peer.open()
            line = peer.call(ident, tool, arguments, timeout)
            self.assertEqual(case.text_of(peer.call("next", "echo", {"text": "fine"})), "fine", "the next call")
            answers = [each for each in peer.lines if json.loads(each).get("id") == ident]
            self.assertEqual(len(answers), 1, "one answer a call")
        return line

    def refused(self, line, *words):
        """The answer is a failure whose text holds each of the words (patterns)."""
        self.assertTrue(case.is_error(line), line)
        for word in words:
            self.assertRegex(case.text_of(line), re.compile(word, re.IGNORECASE))

    def limit(self, line, name, value):
        """The answer is an `isError` that says which limit, its value, and the TOML line that would raise it."""
        message = json.loads(line)
        self.assertIs(message.get("result", {}).get("isError"), True, line)
        self.refused(line, name, value, rf"{name}\s*=\s*\S")
        self.violation(name)

    def violation(self, name):
        """The record of the call names the limit."""
        hit = [each.get("limit") for record in self.records() for each in record.get("violations") or []]
        self.assertIn(name, hit, self.audit.read_text(encoding="utf-8"))


class Servers(Tiny):
    """A server that dies or breaks the protocol."""

    def test_dies(self):
        self.refused(self.one("die", {"status": 3}), r"\b3\b", "last words")

    def test_killed_by_a_signal(self):
        self.refused(self.one("crash"), r"SIGSEGV|\b11\b", "last words")

    def test_prints_what_is_no_message_and_ends(self):
        self.refused(self.one("nonjson"), "JSON", "last words")

    def test_prints_what_is_no_message_and_answers(self):
        self.assertEqual(case.text_of(self.one("chatter")), "answered")

    def test_answers_with_a_wrong_id(self):
        with self.open_celled(fixtures.tiny()) as peer:
            peer.open()
            self.refused(peer.call(1, "wrongid"), "not made", "last words")
            self.assertEqual([json.loads(line)["id"] for line in peer.lines], [0, 1])

    def test_answers_twice(self):
        self.assertEqual(case.text_of(self.one("twice")), "first")

    def test_closes_stdout(self):
        self.refused(self.one("closeout", options=["--timeout=5s"]), "stdout|output", "last words")

    def test_many_lines_on_stderr(self):
        line = self.one("stderr")
        self.refused(line, r"\b4\b", "last words")
        self.assertNotIn("noise 1\n", case.text_of(line))
        self.assertLess(len(line), 64 << 10)
        self.assertNotIn("\x1b", case.text_of(line))

    def test_program_that_is_not_there(self):
        command = fixtures.Server(["/nonexistent/server"])
        with self.open_celled(command) as peer:
            peer.post(0, "initialize", INITIALIZE)
            peer.wait_exit(5)
            self.assertEqual(peer.process.returncode, 127, peer.stderr)
            self.assertIn("/nonexistent/server", peer.stderr)

    def test_ends_before_the_handshake(self):
        with self.open_celled(fixtures.Server(["/bin/false"])) as peer:
            line = peer.request(0, "initialize", INITIALIZE)
            self.refused(line, r"\b1\b")


class Limits(Tiny):
    """A server that uses too much."""

    def test_time(self):
        self.limit(self.one("hang", options=["--timeout=1s"]), "time", r"\b1 ?s|1000 ?ms")
        self.limit(self.one("stubborn", options=["--timeout=1s"]), "time", r"\b1 ?s|1000 ?ms")

    def test_half_a_line_then_silence(self):
        self.limit(self.one("halfline", options=["--timeout=1s"]), "time", r"\b1 ?s|1000 ?ms")

    def profile(self):
        """The option for a profile with small limits."""
        path = self.work / "small.toml"
        path.write_text(PROFILE, encoding="utf-8")
        path.chmod(0o600)
        return f"--profile={path}"

    def test_output_without_end(self):
        self.limit(self.one("flood", options=[self.profile()]), "output", "1 ?MiB|1048576")

    def test_messages_without_end(self):
        self.limit(self.one("messages", options=[self.profile()]), "output", "1 ?MiB|1048576")

    def test_open_files(self):
        self.assertEqual(case.text_of(self.one("descriptors", options=[self.profile()])), "EMFILE")

    def test_file_size(self):
        # The kernel ends a process that goes on writing, unless it ignores the signal, as Python does.
        line = self.one("scratch", {"size": 4 << 20}, options=[self.profile()])
        self.assertEqual(case.text_of(line), "EFBIG")

    def test_scratch(self):
        self.assertEqual(case.text_of(self.one("scratch", options=["--scratch=1MiB"])), "ENOSPC")

    def test_memory(self):
        self.need_full()
        self.limit(self.one("oom", options=["--memory=64MiB"]), "memory", "64 ?MiB|67108864")

    def test_memory_of_scratch_counts(self):
        self.need_full()
        self.limit(self.one("scratch", options=["--memory=64MiB", "--scratch=512MiB"]), "memory", "64 ?MiB|67108864")

    def test_tasks(self):
        self.need_full()
        line = self.one("forkbomb", options=["--tasks=20"])
        self.assertRegex(case.text_of(line), "made fewer, refused: Resource temporarily unavailable")
        self.violation("tasks")

    def test_cpu(self):
        self.need_full()
        line = self.one("spin", {"seconds": 1.0}, options=["--cpu=0.2"])
        self.assertEqual(case.text_of(line), "burnt")
        self.violation("cpu")


class Cells(Tiny):
    """What a call sees; each grant with its neighbour."""

    def test_what_a_process_sees_of_itself(self):
        facts = json.loads(case.text_of(self.one("facts", options=["--env=GIVEN=1"])))
        self.assertNotEqual(facts["uid"], 0)
        self.assertEqual(facts["descriptors"], [0, 1, 2])
        self.assertLessEqual(len(facts["processes"]), 3, facts)
        self.assertIn("GIVEN", facts["environment"])

    def test_environment_is_not_inherited(self):
        with self.open_celled(fixtures.tiny(), env={"API_KEY": "secret", "PASSED": "yes"}) as peer:
            peer.open()
            line = peer.call(1, "facts")
            self.assertNotIn("API_KEY", json.loads(case.text_of(line))["environment"])
            line = peer.call(2, "read", {"path": "/proc/1/environ"})
            self.assertIn(case.text_of(line), ("", "EACCES", "EPERM", "ENOENT"))

    def test_read(self):
        granted, other = self.directory("granted"), self.directory("granted-not")
        for directory in (granted, other):
            (directory / "file").write_text("content", encoding="utf-8")
        with self.open_celled(fixtures.tiny(), f"--read={granted}") as peer:
            peer.open()
            self.assertEqual(case.text_of(peer.call(1, "read", {"path": f"{granted}/file"})), "content")
            for number, path in enumerate((f"{other}/file", f"{granted}/../granted-not/file", "/etc/shadow",
                                           str(self.audit), f"/proc/self/root{other}/file"), 10):
                self.assertRegex(case.text_of(peer.call(number, "read", {"path": path})), r"\AE[A-Z]+\Z", path)
            line = peer.call(3, "write", {"path": f"{granted}/new"})
            self.assertRegex(case.text_of(line), r"\A(EROFS|EACCES|EPERM)\Z")
        self.assertFalse((granted / "new").exists())

    def test_write(self):
        granted, other = self.directory("granted"), self.directory("other")
        with self.open_celled(fixtures.tiny(), f"--write={granted}") as peer:
            peer.open()
            self.assertEqual(case.text_of(peer.call(1, "write", {"path": f"{granted}/file"})), "ok")
            self.assertEqual((granted / "file").read_text(encoding="utf-8"), "written")
            self.assertRegex(case.text_of(peer.call(2, "write", {"path": f"{other}/file"})), r"\AE[A-Z]+\Z")
        self.assertEqual(list(other.iterdir()), [])

    def test_scratch_is_private_and_gone(self):
        with self.open_celled(fixtures.tiny()) as peer:
            peer.open()
            self.assertEqual(case.text_of(peer.call(1, "write", {"path": "/tmp/mine"})), "ok")
            self.assertEqual(case.text_of(peer.call(2, "read", {"path": "/tmp/mine"})), "ENOENT")

    def test_network(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with self.open_celled(fixtures.tiny()) as peer:
                peer.open()
                for number, host in enumerate(("127.0.0.1", "192.0.2.1", "169.254.169.254")):
                    line = peer.call(f"to {number}", "connect", {"host": host, "port": port})
                    self.assertRegex(case.text_of(line), r"\AE[A-Z]+\Z", host)

    def test_each_tool_has_its_own_profile(self):
        granted = self.directory("granted")
        (self.work / "writer.toml").write_text(
            f'description = "May write."\nextends = "default"\n[filesystem]\nwrite = ["{granted}"]\n', encoding="utf-8")
        config = self.work / "toolcell.toml"
        command = json.dumps(fixtures.tiny().command)
        config.write_text(f'[servers.tiny]\ncommand = {command}\n[servers.tiny.tools.write]\nprofile = "writer"\n',
                          encoding="utf-8")
        floor = [] if self.full else ["--floor=no-cgroup"]
        with wire.Wire([case.TOOLCELL, "run", *floor, f"--audit={self.audit}", f"--config={config}", "tiny"],
                       self.base) as peer:
            peer.open()
            self.assertEqual(case.text_of(peer.call(1, "write", {"path": f"{granted}/file"})), "ok")
            self.assertRegex(case.text_of(peer.call(2, "read", {"path": f"{granted}/file"})), r"\AE[A-Z]+\Z")

    def test_no_link_is_followed_that_another_tool_could_have_made(self):
        granted, secret = self.directory("granted"), self.directory("secret")
        (granted / "sub").mkdir()
        for directory in (granted / "sub", secret):
            (directory / "file").write_text(directory.name, encoding="utf-8")
        for name, grant in (("writer", f'write = ["{granted}"]'), ("reader", f'read = ["{granted}/sub"]')):
            (self.work / f"{name}.toml").write_text(f'extends = "default"\n[filesystem]\n{grant}\n', encoding="utf-8")
        config = self.work / "toolcell.toml"
        config.write_text(f'[servers.tiny]\ncommand = {json.dumps(fixtures.tiny().command)}\nprofile = "reader"\n'
                          '[servers.tiny.tools.write]\nprofile = "writer"\n', encoding="utf-8")
        floor = [] if self.full else ["--floor=no-cgroup"]
        with wire.Wire([case.TOOLCELL, "run", *floor, f"--audit={self.audit}", f"--config={config}", "tiny"],
                       self.base) as peer:
            peer.open()
            self.assertEqual(case.text_of(peer.call(1, "read", {"path": f"{granted}/sub/file"})), "sub")
            (granted / "sub").rename(granted / "moved")
            (granted / "sub").symlink_to(secret)
            line = peer.call(2, "read", {"path": f"{granted}/sub/file"})
            self.assertTrue(case.is_error(line), line)
            self.assertIn("ELOOP", case.text_of(line))


class Records(Tiny):
    """The audit log."""

    def test_one_started_and_one_finished_a_call(self):
        hostile = "line\nbreak \x1b[31m \u2028 end"
        with self.open_celled(fixtures.tiny()) as peer:
            peer.open()
            for number in range(3):
                peer.call(number + 1, "echo", {"text": hostile})
        raw = self.audit.read_bytes()
        self.assertEqual(self.audit.stat().st_mode & 0o777, 0o600)
        self.assertNotIn(b"\x1b", raw)
        self.assertNotIn("\u2028".encode(), raw)
        calls = [record for record in self.records() if "echo" in json.dumps(record)]
        self.assertEqual(len(calls), 6, raw.decode())
        text = json.dumps(calls)
        self.assertEqual((text.count('"started"'), text.count('"finished"')), (3, 3), text)

    def test_a_log_that_cannot_be_written_stops_the_call(self):
        with self.open_celled(fixtures.tiny(), f"--audit={self.work}/no/such/directory/log") as peer:
            peer.post(0, "initialize", INITIALIZE)
            peer.wait_exit(5)
            self.assertEqual(peer.process.returncode, 123, peer.stderr)
            self.assertEqual(peer.lines, [])
