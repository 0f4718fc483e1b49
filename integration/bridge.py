#!/usr/bin/env python3
"""Streamable HTTP on this side, a server's stdio on the other: the official suite knows HTTP alone.

Purpose: carries every message as it is, so that what the suite says of the server behind it is about that server.
Neighbours: `servers/conformance` is behind it, bare or in cells; `scripts/conformance` starts both.
Never: answers for the server, or is reachable from another machine.

    integration/bridge.py -- COMMAND…

A legacy session has a process of its own; all modern requests share one, in which each gets an id of the bridge's, as
clients that know nothing of each other choose the same. What HTTP demands beside the messages (sessions, hosts,
headers) is demanded here. The first line of stdout is the address.
"""

import asyncio
import base64
import binascii
import contextlib
import itertools
import json
import sys
import uuid

MODERN = "2026-07-28"
VERSION = "io.modelcontextprotocol/protocolVersion"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
LOCAL = ("localhost", "127.0.0.1", "[::1]")
LONGEST = 64 << 20
STATUS = {200: "OK", 202: "Accepted", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
          405: "Method Not Allowed", 502: "Bad Gateway"}
# What a modern server's error is in HTTP; other errors are results of their requests.
OF_ERROR = {-32700: 400, -32600: 400, -32601: 404, -32602: 400, -32020: 400, -32021: 400, -32022: 400}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri", "tasks/get": "taskId",
         "tasks/update": "taskId", "tasks/cancel": "taskId"}


class Refused(Exception):
    """An answer of the bridge's own."""

    def __init__(self, status, code=None, message=""):
        super().__init__(message)
        self.status = status
        self.code = code


class Stream:
    """What waits for the messages that belong to one HTTP request."""

    def __init__(self, ident, message):
        self.ident = ident
        self.method = message.get("method")
        params = message.get("params") or {}
        meta = params.get("_meta") if isinstance(params, dict) else None
        self.token = meta.get("progressToken") if isinstance(meta, dict) else None
        self.queue = asyncio.Queue()


class Process:
    """A server, and who waits for what it says."""

    def __init__(self, child, shared):
        self.child = child
        self.shared = shared
        self.numbers = itertools.count(1)
        self.streams = {}
        self.standing = None
        self.headers = {}
        self.reading = asyncio.create_task(self.read())

    @classmethod
    async def start(cls, command, shared):
        """Starts a server."""
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LONGEST)
        return cls(child, shared)

    def send(self, message):
        """Writes one message."""
        with contextlib.suppress(ConnectionError):
            self.child.stdin.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def ask(self, message):
        """Writes a request; the stream on which it is answered."""
        own = next(self.numbers) if self.shared else message["id"]
        stream = self.streams[own] = Stream(message["id"], message)
        self.send({**message, "id": own})
        return own, stream

    def forget(self, own, told):
        """Nobody waits any more; the server is told unless it has answered."""
        if self.streams.pop(own, None) and not told:
            self.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": own}})

    async def read(self):
        """Hands on what the server says until it says no more."""
        while line := await self.child.stdout.readline():
            self.route(json.loads(line))
        for stream in self.streams.values():
            stream.queue.put_nowait(None)
        if self.standing:
            self.standing.put_nowait(None)

    def route(self, message):
        """Hands one message to whom it belongs."""
        if "method" not in message:
            if stream := self.streams.get(message.get("id")):
                self.learn(stream, message)
                stream.queue.put_nowait({**message, "id": stream.ident})
            return
        params = message.get("params") or {}
        meta = params.get("_meta") or {}
        if (stream := self.streams.get(meta.get(SUBSCRIPTION))) is not None:
            meta[SUBSCRIPTION] = stream.ident
            stream.queue.put_nowait(message)
            return
        open_streams = list(self.streams.values())
        if message["method"] == "notifications/progress":
            open_streams = [each for each in open_streams if each.token == params.get("progressToken")]
        # Nothing on stdio says to which call a question or a message of the log belongs: the latest one's.
        calls = [each for each in open_streams if each.method == "tools/call"]
        if calls:
            calls[-1].queue.put_nowait(message)
        elif self.standing:
            self.standing.put_nowait(message)

    def learn(self, stream, message):
        """Remembers which arguments of tools have headers."""
        if stream.method == "tools/list":
            for tool in message.get("result", {}).get("tools", ()):
                properties = tool.get("inputSchema", {}).get("properties", {})
                self.headers[tool["name"]] = {name: schema["x-mcp-header"] for name, schema in properties.items()
                                              if "x-mcp-header" in schema}

    async def end(self):
        """Ends the server as an SDK does."""
        self.child.stdin.close()
        for act in (lambda: None, self.child.terminate, self.child.kill):
            with contextlib.suppress(ProcessLookupError):
                act()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.child.wait(), 2)
                break
        await self.reading


def decoded(value):
    """The value of a header that may be written in Base64."""
    if not (value.startswith("=?base64?") and value.endswith("?=") and len(value) >= 11):
        return value
    try:
        raw = base64.b64decode(value[9:-2], validate=True)
        if base64.b64encode(raw).decode() == value[9:-2]:
            return raw.decode()
    except (binascii.Error, UnicodeDecodeError):
        pass
    return None


class Bridge:
    """All sessions, and the HTTP around them."""

    def __init__(self, command):
        self.command = command
        self.sessions = {}
        self.shared = None

    async def modern(self):
        """The process of all modern requests."""
        if self.shared is None:
            self.shared = asyncio.ensure_future(Process.start(self.command, True))
        return await self.shared

    async def connection(self, reader, writer):
        """One connection, one request: what streams ends with its connection."""
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                method, headers = await self.head(reader)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self.request(method, headers, body, reader, writer)
        finally:
            writer.close()

    async def head(self, reader):
        """The method and the headers of a request, their names in small letters."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = (line.partition(":") for line in head[1:] if line)
        return head[0].split(" ")[0], {name.lower(): value.strip(" \t") for name, _, value in fields}

    async def request(self, method, headers, body, reader, writer):
        """Answers one request."""
        ident = None
        try:
            self.check_origin(headers)
            if method == "GET":
                return await self.stand(self.session(headers), reader, writer)
            if method == "DELETE":
                process = self.session(headers)
                del self.sessions[headers["mcp-session-id"]]
                await process.end()
                return self.plain(writer, 200)
            if method != "POST":
                raise Refused(405)
            try:
                message = json.loads(body)
            except ValueError as error:
                raise Refused(400, -32700, "not JSON") from error
            if not isinstance(message, dict):
                raise Refused(400, -32600, "not one message")
            ident = message.get("id")
            await self.post(headers, message, reader, writer)
        except Refused as refused:
            error = None
            if refused.code is not None:
                error = {"jsonrpc": "2.0", "id": ident, "error": {"code": refused.code, "message": str(refused)}}
            self.plain(writer, refused.status, error)

    def check_origin(self, headers):
        """A page from elsewhere must not reach what listens on this machine."""
        origin = headers.get("origin", "http://localhost")
        for host in (headers.get("host", ""), origin.partition("://")[2]):
            if host.rsplit(":", 1)[0] not in LOCAL and host not in LOCAL:
                raise Refused(403)

    def session(self, headers):
        """The process of a legacy session."""
        named = headers.get("mcp-session-id")
        if named is None:
            raise Refused(405 if headers.get("mcp-protocol-version") == MODERN else 400, -32000, "no session")
        if named not in self.sessions:
            raise Refused(404, -32001, "no such session")
        return self.sessions[named]

    async def post(self, headers, message, reader, writer):
        """One message of the client."""
        params = message.get("params") if isinstance(message.get("params"), dict) else {}
        meta = params.get("_meta") if isinstance(params.get("_meta"), dict) else {}
        more, named = {}, headers.get("mcp-session-id")
        legacy = named is not None
        if legacy:
            process = self.session(headers)
        elif VERSION in meta or headers.get("mcp-protocol-version") == MODERN:
            process = await self.modern()
            self.check_headers(process, headers, message, params, meta)
        elif message.get("method") == "initialize":
            process, legacy = await Process.start(self.command, False), True
            session = str(uuid.uuid4())
            self.sessions[session] = process
            more = {"Mcp-Session-Id": session}
        else:
            raise Refused(400, -32000, "no session")
        if "method" not in message or "id" not in message:
            process.send(message)
            return self.plain(writer, 202)
        own, stream = process.ask(message)
        told = False
        try:
            told = await self.stream(stream.queue, stream.ident, reader, writer, more, legacy)
        finally:
            process.forget(own, told)

    def check_headers(self, process, headers, message, params, meta):
        """What a modern request says in its headers is what it says in its body."""
        def same(header, expected):
            if headers.get(header) != expected:
                raise Refused(400, -32020, f"the header {header} is not what the body says")
        if isinstance(meta.get(VERSION), str):
            same("mcp-protocol-version", meta[VERSION])
        same("mcp-method", message.get("method"))
        if (member := NAMED.get(message.get("method"))) and isinstance(params.get(member), str):
            same("mcp-name", params[member])
        arguments = params.get("arguments") or {}
        for name, header in process.headers.get(params.get("name"), {}).items():
            if name in arguments and decoded(headers.get(f"mcp-param-{header.lower()}", "")) != str(arguments[name]):
                raise Refused(400, -32020, f"the header Mcp-Param-{header} is not what the body says")

    async def stream(self, queue, ident, reader, writer, more, legacy):
        """Sends what belongs to a request until it is answered or the client leaves; whether it was answered."""
        gone = asyncio.create_task(reader.read(1))
        started = False
        try:
            while True:
                getting = asyncio.create_task(queue.get())
                await asyncio.wait([getting, gone], return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    return False
                message = getting.result()
                if message is None:
                    message = {"jsonrpc": "2.0", "id": ident, "error": {"code": -32603, "message": "the server has ended"}}
                answer = "method" not in message
                if answer and "error" in message and not started:
                    status = 200 if legacy else OF_ERROR.get(message["error"].get("code"), 200)
                    self.plain(writer, status, message, more)
                    return True
                if not started:
                    self.start_stream(writer, more)
                    started = True
                self.event(writer, message)
                await writer.drain()
                if answer:
                    return True
        finally:
            gone.cancel()

    async def stand(self, process, reader, writer):
        """The stream of a session for what belongs to no request."""
        process.standing = asyncio.Queue()
        self.start_stream(writer, {})
        await writer.drain()
        gone = asyncio.create_task(reader.read(1))
        while True:
            getting = asyncio.create_task(process.standing.get())
            await asyncio.wait([getting, gone], return_when=asyncio.FIRST_COMPLETED)
            if not getting.done() or getting.result() is None:
                getting.cancel()
                gone.cancel()
                process.standing = None
                return
            self.event(writer, getting.result())
            await writer.drain()

    def start_stream(self, writer, more):
        """The head of an answer that streams."""
        head = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "Connection": "close", **more}
        self.head_of(writer, 200, head)

    def event(self, writer, message):
        """One message of a stream."""
        writer.write(b"event: message\ndata: " + json.dumps(message, separators=(",", ":")).encode() + b"\n\n")

    def plain(self, writer, status, message=None, more=None):
        """A whole answer."""
        body = b"" if message is None else json.dumps(message, separators=(",", ":")).encode()
        kind = {} if message is None else {"Content-Type": "application/json"}
        self.head_of(writer, status, {**kind, "Content-Length": len(body), "Connection": "close", **(more or {})})
        writer.write(body)

    def head_of(self, writer, status, fields):
        """The head of an answer."""
        lines = [f"HTTP/1.1 {status} {STATUS[status]}", *(f"{name}: {value}" for name, value in fields.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())

    async def end(self):
        """Ends every server."""
        if self.shared is not None:
            await (await self.shared).end()
        await asyncio.gather(*(process.end() for process in self.sessions.values()))


async def main():
    """Listens until the end of its input."""
    if sys.argv[1:2] != ["--"] or len(sys.argv) < 3:
        sys.exit("usage: bridge.py -- COMMAND…")
    bridge = Bridge(sys.argv[2:])
    listening = await asyncio.start_server(bridge.connection, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/mcp", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    listening.close()
    await bridge.end()


if __name__ == "__main__":
    asyncio.run(main())
