"""A client that speaks raw lines: what it sends and what it gets back stay bytes, so that two runs can be compared.

Neighbours: tests drive it; `leaks` looks at the processes it starts.
Never: repairs, reorders or re-encodes a line of the server.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import threading
import time

LEGACY = "2025-11-25"
MODERN = "2026-07-28"

CLIENT = {"name": "outside", "version": "1.0"}

# What an official SDK passes to a server that it starts, and nothing else.
PASSED = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")


class Closed(Exception):
    """The server's stdout ended before the line that was waited for."""


class TimedOut(Exception):
    """The line that was waited for did not come before the deadline."""


def encode(message):
    """One message as the line that is sent: fixed order and spacing, so that both runs send the same bytes."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


class Wire:
    """One server process and everything it printed."""

    def __init__(self, command, env=None, cwd=None, answers=None):
        """Starts `command`. `answers`: method → function from params to result, for requests of the server."""
        self.answers = answers or {}
        self.numbers = itertools.count(1)
        self.bare = False
        self.lines = []
        self.arrivals = []
        self.requests = []
        self.ended = False
        self._stderr = []
        self._changed = threading.Condition()
        self._write = threading.Lock()
        whole = {name: os.environ[name] for name in PASSED if name in os.environ}
        whole.update(env or {})
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=whole, cwd=cwd)
        self._threads = [threading.Thread(target=self._read, daemon=True),
                         threading.Thread(target=self._read_stderr, daemon=True)]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read(self):
        for line in self.process.stdout:
            reply = None
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if isinstance(message, dict) and "method" in message and "id" in message:
                make = self.answers.get(message["method"])
                reply = {"jsonrpc": "2.0", "id": message["id"]}
                if make:
                    reply["result"] = make(message.get("params", {}))
                else:
                    reply["error"] = {"code": -32601, "message": "Method not found"}
            with self._changed:
                self.lines.append(line)
                self.arrivals.append(time.monotonic())
                if reply:
                    self.requests.append(message)
                self._changed.notify_all()
            if reply:
                self.send(reply)
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _read_stderr(self):
        for line in self.process.stderr:
            self._stderr.append(line)

    @property
    def stderr(self):
        """What came on stderr so far."""
        return b"".join(self._stderr).decode(errors="replace")

    def send_raw(self, data):
        """Writes bytes as they are; a server that is gone is noticed by whoever waits for its answer."""
        with self._write:
            with contextlib.suppress(BrokenPipeError, ValueError):
                self.process.stdin.write(data)
                self.process.stdin.flush()

    def send(self, message):
        """Writes one message."""
        self.send_raw(encode(message))

    def notify(self, method, params=None):
        """Writes a notification."""
        message = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        self.send(message)

    def post(self, ident, method, params=None):
        """Writes a request and does not wait."""
        message = {"jsonrpc": "2.0", "id": ident, "method": method}
        if params is not None:
            message["params"] = params
        self.send(message)

    def wait_for(self, accept, timeout=30, what="a line"):
        """The first line for which `accept(message)` holds, as bytes."""
        deadline = time.monotonic() + timeout
        seen = 0
        with self._changed:
            while True:
                while seen < len(self.lines):
                    line = self.lines[seen]
                    seen += 1
                    try:
                        message = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(message, dict) and accept(message):
                        return line
                if self.ended:
                    raise Closed(f"stdout ended before {what}; stderr:\n{self.stderr}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimedOut(f"no {what} in {timeout} s; stderr:\n{self.stderr}")
                self._changed.wait(left)

    def answer(self, ident, timeout=30):
        """The line that answers request `ident`, as bytes."""
        return self.wait_for(lambda m: m.get("id") == ident and type(m["id"]) is type(ident) and "method" not in m,
                             timeout, f"answer to {ident!r}")

    def request(self, ident, method, params=None, timeout=30):
        """Sends a request and waits for the line that answers it."""
        self.post(ident, method, params)
        return self.answer(ident, timeout)

    def result(self, ident, method, params=None, timeout=30):
        """Sends a request and gives the decoded answer."""
        return json.loads(self.request(ident, method, params, timeout))

    def call(self, ident, tool, arguments=None, timeout=30, **params):
        """`tools/call`; the line that answers it."""
        return self.request(ident, "tools/call", {"name": tool, "arguments": arguments or {}, **params}, timeout)

    def open(self, capabilities=None, version=LEGACY, ident=0, timeout=30):
        """The legacy handshake; the line that answers `initialize`."""
        line = self.request(ident, "initialize", {
            "protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": CLIENT}, timeout)
        self.notify("notifications/initialized")
        return line

    def notifications(self, method=None, token=None):
        """Lines that are notifications so far, by method and progress token, without the lists' own news.

        A server that is started afresh says on every start that its lists changed: that is not compared.
        """
        found = []
        with self._changed:
            for line in self.lines:
                try:
                    message = json.loads(line)
                except ValueError:
                    continue
                name = message.get("method", "") if isinstance(message, dict) else ""
                if "id" in message or not name or name.endswith("/list_changed"):
                    continue
                if method and name != method:
                    continue
                if token is not None and message.get("params", {}).get("progressToken") != token:
                    continue
                found.append(line)
        return found

    def close_stdin(self):
        """End of input, as a client does that goes away."""
        with self._write, contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def wait_exit(self, timeout):
        """Seconds until the process was gone."""
        start = time.monotonic()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimedOut(f"process still there after {timeout} s") from error
        took = time.monotonic() - start
        # What it wrote last is in the pipes; a descendant that holds one must not hold the test.
        for thread in self._threads:
            thread.join(1)
        return took

    def close(self, timeout=5):
        """As an SDK does: end of input, then a signal, then a kill. Gives the exit status."""
        self.close_stdin()
        for act in (lambda: None, self.process.terminate, self.process.kill):
            act()
            try:
                self.process.wait(timeout)
                break
            except subprocess.TimeoutExpired:
                continue
        # A daemonised child may hold the pipes open: then the readers stay, as daemon threads.
        for thread in self._threads:
            thread.join(0.5)
        if not any(thread.is_alive() for thread in self._threads):
            for stream in (self.process.stdout, self.process.stderr):
                stream.close()
        return self.process.returncode

    def kill(self):
        """SIGKILL to the process that was started."""
        os.kill(self.process.pid, signal.SIGKILL)


def modern(params=None, token=None, version=MODERN):
    """Params of a modern request: each carries its own protocol version and capabilities."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientInfo": CLIENT,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    if token is not None:
        meta["progressToken"] = token
    return {**(params or {}), "_meta": meta}
