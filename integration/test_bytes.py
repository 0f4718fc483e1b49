"""Byte for byte: what a client sends reaches a server, and what a server says reaches the client.

`record` writes down both sides of toolcell while an SDK talks through it. Every line is then found on the other side as it
is, or is one of the few that this file names: an edit that toolcell is for, or a line of its own. Never: compares meanings.
"""

import json
import os
import re
import shlex
import subprocess

import case
import fixtures
import test_sdk
import test_typescript

MODERN = "2026-07-28"
OWN = "dev.toolcell/"
LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "server/discover")


def raw(value):
    """A pattern for an id or a token as it may stand in a line."""
    return re.escape(json.dumps(value)).encode()


class Line:
    """One line, and what of it matters here."""

    def __init__(self, line):
        self.line = line
        self.message = json.loads(line)
        self.ident = self.message.get("id")
        self.method = self.message.get("method")

    def without(self, name, value):
        """The line's bytes, as many variants as places where a member of this name and value may stand."""
        pattern = rb'("' + name.encode() + rb'"\s*:\s*)' + raw(value)
        return {self.line[:match.end(1)] + b"?" + self.line[match.end():]
                for match in re.finditer(pattern, self.line)}

    def same_but_id(self, other):
        """Whether the two differ in nothing but their ids."""
        return bool(self.without("id", self.ident) & other.without("id", other.ident))

    def is_answer(self):
        """Whether it answers a request."""
        return self.method is None


class Talk:
    """What one recorder wrote, or several."""

    def __init__(self, texts):
        lines = [line for text in texts for line in text.splitlines(keepends=True)]
        self.up = [Line(line[1:]) for line in lines if line.startswith(b">")]
        self.down = [Line(line[1:]) for line in lines if line.startswith(b"<")]


def recordings(directory):
    """All recordings of a directory."""
    return [path.read_bytes() for path in sorted(directory.iterdir())]


def take(lines, accept):
    """Removes the first line that is accepted; whether there was one."""
    for place, line in enumerate(lines):
        if accept(line):
            del lines[place]
            return True
    return False


def replayed(line, sent):
    """Whether a line is one that toolcell says to a fresh process for itself, made of what the client has sent."""
    def of(ident, method):
        # The last one, with its parameters as they were written.
        for each in reversed(sent):
            if each.method == method:
                params = re.search(rb'"params"\s*:\s*(\{.*\})\s*[,}]', each.line)
                yield (f'{{"jsonrpc":"2.0","id":"{OWN}{ident}","method":"{method}","params":'.encode(), params[1])
    if line.line == b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n':
        return True
    if line.line == f'{{"jsonrpc":"2.0","id":"{OWN}ping","method":"ping"}}\n'.encode():
        return True
    if line.ident == f"{OWN}tools":
        # The list that toolcell checks arguments against, asked with what the protocol wants of the call's own `_meta`.
        return line.method == "tools/list"
    return any(line.line == head + params + b"}\n"
               for ident, method in (("initialize", "initialize"), ("level", "logging/setLevel"))
               for head, params in of(ident, method))


def unexplained_up(outer, cells):
    """Lines that reached a server and nobody sent, and lines that were sent and reached none."""
    left = list(outer.up)
    odd = []
    for cell in cells:
        for line in cell.up:
            if take(left, lambda each: each.line == line.line) or replayed(line, outer.up):
                continue
            # The client's answer to a server's question: the server's own id stands in it again.
            if line.is_answer() and take(left, lambda each: each.is_answer() and each.same_but_id(line)):
                continue
            odd.append(("to a server, sent by nobody", line.line))
    for line in left:
        # Toolcell answers these itself, or nobody is there to hear them.
        if line.method not in (*LISTS, "ping", "notifications/initialized", "notifications/cancelled"):
            odd.append(("sent, and in no server", line.line))
    return odd


def offered(line):
    """The answer to a handshake as it may look through toolcell: without what is not offered."""
    result = line.message.get("result") if line.is_answer() else None
    if not isinstance(result, dict) or "capabilities" not in result:
        return line.line
    for part in case.NOT_OFFERED:
        if part in line.line:
            return line.line.replace(part, b"")
    return line.line


def unexplained_down(outer, cells):
    """Lines that reached the client and no server wrote, and answers of servers that reached nobody."""
    said = [line for cell in cells for line in cell.down]
    left = list(said)
    odd = []
    cancelled = {line.message["params"]["requestId"] for line in outer.up if line.method == "notifications/cancelled"}
    questions = {line.ident for line in outer.down if line.method and line.ident is not None}
    for line in outer.down:
        if take(left, lambda each: each.line == line.line) or take(left, lambda each: offered(each) == line.line):
            continue
        if line.method is not None and line.ident is not None:
            # A server's question gets an id that no other server's has.
            if take(left, lambda each: each.method == line.method and each.same_but_id(line)):
                continue
        asked = next((each for each in outer.up if each.ident == line.ident and each.method), None)
        if line.is_answer() and asked is not None:
            # A list that is kept, or toolcell's own answer to a ping.
            if asked.method in LISTS and any(each.same_but_id(line) for each in said):
                continue
            if asked.method == "ping" and line.message == {"jsonrpc": "2.0", "id": line.ident, "result": {}}:
                continue
        # A process that ends takes its questions back.
        if line.method == "notifications/cancelled" and line.message["params"]["requestId"] in questions:
            continue
        odd.append(("to the client, said by nobody", line.line))
    for line in left:
        own = isinstance(line.ident, str) and line.ident.startswith(OWN)
        # What comes behind a cancellation, what a start announces, and what a process says when no call is open.
        late = line.ident in cancelled if line.is_answer() else cancelled or line.method != "notifications/progress"
        if not own and not late:
            odd.append(("said, and not heard", line.line))
    return odd


def unexplained(outer, cells):
    """All of both directions that no rule explains."""
    return unexplained_up(outer, cells) + unexplained_down(outer, cells)


class Recorded(case.Case):
    """Both directions."""

    def run_recorded(self, make, python=None, typescript=None, mode="legacy", steps=(), roots=False, options=()):
        """Runs a client against `make()` in cells, with both sides recorded, and looks at every line."""
        outside, inside = self.directory("outside"), self.directory("inside")
        server = make()
        profile = self.work / "recorded.toml"
        places = json.dumps([str(fixtures.FIXTURES), str(fixtures.HERE)])
        profile.write_text(f'extends = "default"\n[filesystem]\nread = {places}\nexecute = {places}\n'
                           f'write = [{json.dumps(str(inside))}]\n', encoding="utf-8")
        recorder = [fixtures.PYTHON, "-ISE", str(fixtures.HERE / "record.py")]
        command = server.command
        if fixtures.interpreter(command[0]) is not None:
            command = [fixtures.interpreter(command[0]), *command]
        server.command = [*recorder, str(inside), *command]
        wrapped = self.wrapped(server, f"--profile={profile}", *options)
        line = [*recorder, str(outside), *wrapped]
        if python:
            given = json.dumps({"command": line, "env": self.base, "mode": mode, "steps": steps})
            client = [str(python), "-I", str(fixtures.HERE / "clients" / "sdk.py"), given]
        else:
            given = json.dumps({"sdk": typescript, "command": line, "env": self.base, "mode": mode, "steps": steps,
                                "roots": roots})
            client = [str(fixtures.PINNED_NODE), str(fixtures.HERE / "clients" / "sdk.mjs"),
                      str(fixtures.TYPESCRIPT), given]
        done = subprocess.run(client, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                              check=False, env=self.base, cwd="/")
        self.assertEqual(done.returncode, 0, f"{shlex.join(client[:2])} failed:\n{done.stderr[-4000:]}")
        # Some clients start a server twice: once to find out its era.
        outer, cells = Talk(recordings(outside)), [Talk([text]) for text in recordings(inside)]
        self.assertGreater(len(cells), 1)
        odd = unexplained(outer, cells)
        self.assertEqual([], odd, "\n".join(f"{what}: {line.decode(errors='replace')}" for what, line in odd))
        self.would_be_seen(outer, cells)

    def would_be_seen(self, outer, cells):
        """One blank more in a call, or in its answer, is seen on either side."""
        calls = [line.ident for line in outer.up if line.method == "tools/call"]
        for lines in (outer.up, outer.down, *(cell.up for cell in cells), *(cell.down for cell in cells)):
            for place, line in enumerate(lines):
                if line.ident in calls and (line.method == "tools/call" or "result" in line.message):
                    lines[place] = Line(line.line[:-2] + b" }\n")
                    self.assertTrue(unexplained(outer, cells), line.line)
                    lines[place] = line
                    break


class Bytes(Recorded):
    """The modern era, with questions and without."""

    only = case.once()

    def test_typescript2_modern_questions(self):
        self.run_recorded(fixtures.conformance, typescript=2, mode=MODERN, roots=True,
                          steps=test_typescript.MODERN_QUESTIONS)

    def test_python2_modern(self):
        self.run_recorded(fixtures.clock, python=fixtures.SDK2, mode="auto",
                          steps=[["tools"], test_sdk.CONVERT, ["parallel", [test_sdk.CONVERT] * 3]])


class MoreBytes(Recorded):
    """All other servers, SDKs and eras."""

    only = case.long()

    def test_python1_everything(self):
        self.run_recorded(fixtures.everything, python=fixtures.SDK1, steps=test_sdk.Sdk.EVERYTHING,
                          options=("--no-validate",))

    def test_typescript1_everything(self):
        self.run_recorded(fixtures.everything, typescript=1, steps=test_typescript.EVERYTHING, roots=True,
                          options=("--no-validate",))

    def test_typescript2_legacy_questions(self):
        self.run_recorded(fixtures.conformance, typescript=2, steps=test_typescript.LEGACY_QUESTIONS)

    def test_typescript2_finds_the_modern_era(self):
        self.run_recorded(fixtures.clock, typescript=2, mode="auto", steps=[["tools"], test_sdk.CONVERT])

    def test_python2_falls_back(self):
        self.run_recorded(lambda: fixtures.memory(self.directory("graph")), python=fixtures.SDK2, mode="auto", steps=[
            ["tools"], ["call", "create_entities", {"entities": [
                {"name": "ä", "entityType": "t", "observations": ["1.0", "\\u0041"]}]}], ["call", "read_graph", {}]])

    def test_python1_git(self):
        self.run_recorded(self.repository, python=fixtures.SDK1, steps=[
            ["tools"], ["call", "git_status", {"repo_path": str(self.work / "repo")}],
            ["call", "git_log", {"repo_path": str(self.work / "repo")}]])

    def repository(self):
        """A repository with one commit."""
        top = self.directory("repo")
        for words in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "first"]):
            subprocess.run(["git", "-C", str(top), *words], check=True, env={**self.base, **fixtures.GIT})
        return fixtures.git(top)

    def test_python1_sqlite(self):
        self.run_recorded(lambda: fixtures.sqlite(self.directory("db")), python=fixtures.SDK1, steps=[
            ["tools"], ["call", "create_table", {"query": "CREATE TABLE t (a)"}], ["call", "list_tables", {}]])

    def test_python2_filesystem(self):
        self.run_recorded(lambda: fixtures.filesystem(self.directory("files")), python=fixtures.SDK2, steps=[
            ["tools"], ["call", "write_file", {"path": str(self.work / "files" / "a"), "content": "x" * 60_000}],
            ["call", "read_text_file", {"path": str(self.work / "files" / "a")}]])

    def test_python2_thinking(self):
        thought = {"thought": "x", "nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1}
        self.run_recorded(fixtures.thinking, python=fixtures.SDK2, steps=[["tools"], ["call", "sequentialthinking", thought]])

    def test_python1_fetch(self):
        self.run_recorded(fixtures.fetch, python=fixtures.SDK1, steps=[
            ["tools"], ["prompts"], ["call", "fetch", {"url": "http://127.0.0.1:1/"}]])

    def test_python1_tiny(self):
        self.run_recorded(fixtures.tiny, python=fixtures.SDK1, steps=[
            ["level", "info"], ["progress", "news", {"count": 5}], ["call", "spew", {"size": 2_000_000}],
            ["call", "fail", {}]])
