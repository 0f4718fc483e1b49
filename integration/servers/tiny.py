"""A server of the standard library alone that misbehaves when told to, each time in one known way.

Neighbours: tests of errors, limits and leaks wrap it; `toolcell demo` has a hostile server of its own.
Never: harms a host that it is not contained on: each tool has a bound of its own.

Speaks the legacy handshake; with `--modern` it answers `server/discover` as well. Start: about 10 ms.
"""

import json
import os
import sys
import time

MODERN = "--modern" in sys.argv[1:]
# Held by this process alone, as real servers hold their cursors and sealed states.
SECRET = os.urandom(8).hex()
TOOLS = {}


def tool(function):
    """Makes a function callable as a tool; its name is the tool's."""
    TOOLS[function.__name__] = function
    return function


def put(message):
    """Writes one message."""
    sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def say(text):
    """Writes a line to stderr."""
    sys.stderr.write(f"tiny: {text}\n")
    sys.stderr.flush()


def started(token):
    """Tells the client, if it asked, that the tool is running now."""
    if token is not None:
        put({"jsonrpc": "2.0", "method": "notifications/progress",
             "params": {"progressToken": token, "progress": 0, "message": "running"}})


def wait_for_ever():
    """Sleeps, whatever happens, for longer than any test."""
    end = time.monotonic() + 120
    while (left := end - time.monotonic()) > 0:
        time.sleep(left)


def errno_of(act):
    """The name of the error that `act` meets, or `ok`."""
    import errno
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "ok"


@tool
def echo(text=""):
    """Gives its argument back."""
    return text


@tool
def digest(name=""):
    """The SHA-256 of a variable, and the variable itself."""
    import hashlib
    value = os.environ.get(name, "")
    say(f"{name} is {value}")
    return f"{hashlib.sha256(value.encode()).hexdigest()} {value}"


@tool
def pause(seconds=0.1):
    """Answers after a while."""
    time.sleep(seconds)
    return "slept"


@tool
def spew(size=0):
    """A text of `size` bytes."""
    return "x" * size


@tool
def news(count=3):
    """Progress and log messages before the answer."""
    for step in range(1, count + 1):
        if news.token is not None:
            put({"jsonrpc": "2.0", "method": "notifications/progress",
                 "params": {"progressToken": news.token, "progress": step, "total": count}})
        put({"jsonrpc": "2.0", "method": "notifications/message",
             "params": {"level": "info", "logger": "tiny", "data": f"step {step}"}})
    return "told"


@tool
def fail():
    """An error result."""
    raise ValueError("the tool itself failed")


@tool
def die(status=3):
    """Exits without an answer."""
    say("the disk is on fire")
    say("last words")
    os._exit(status)


@tool
def crash():
    """Ends by a signal."""
    say("last words")
    os.kill(os.getpid(), 11) or wait_for_ever()


@tool
def hang():
    """Never answers."""
    say("waiting for Godot")
    wait_for_ever()


@tool
def nonjson():
    """Prints something that is no message, then ends."""
    say("last words")
    sys.stdout.write("Traceback (most recent call last): not JSON\n")
    sys.stdout.flush()
    os._exit(0)


@tool
def chatter():
    """Prints a line that is no message and then answers properly."""
    sys.stdout.write("Loading model weights...\n")
    sys.stdout.flush()
    return "answered"


@tool
def wrongid():
    """Answers a request that nobody made, then ends."""
    say("last words")
    put({"jsonrpc": "2.0", "id": "not-yours", "result": {"content": [{"type": "text", "text": "forged"}]}})
    os._exit(0)


@tool
def twice():
    """Answers, and then answers again."""
    put({"jsonrpc": "2.0", "id": twice.ident, "result": {"content": [{"type": "text", "text": "first"}]}})
    return "second"


@tool
def closeout():
    """Closes stdout and stays."""
    say("last words")
    os.close(1)
    wait_for_ever()


@tool
def halfline():
    """Half an answer, then silence."""
    sys.stdout.write('{"jsonrpc":"2.0","id":')
    sys.stdout.flush()
    wait_for_ever()


@tool
def flood(size=64 << 20):
    """Output without an end of line."""
    block = b"A" * 65536
    for _ in range(size // len(block)):
        os.write(1, block)
    wait_for_ever()


@tool
def messages(count=200000):
    """Very many small messages."""
    line = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"."}}\n' * 100
    for _ in range(count // 100):
        os.write(1, line)
    return "told"


@tool
def stderr(lines=20000):
    """Very many lines on stderr, with a control sequence in the last one, then the end."""
    for number in range(lines):
        sys.stderr.write(f"tiny: noise {number}\n")
    sys.stderr.write("tiny: \x1b[31mlast words\x1b[0m\n")
    sys.stderr.flush()
    os._exit(4)


@tool
def oom(limit=2 << 30):
    """Takes memory up to `limit`."""
    say("hungry")
    taken = []
    while len(taken) * (16 << 20) < limit:
        taken.append(bytearray(os.urandom(1) * (16 << 20)))
    return "took it all"


@tool
def forkbomb(limit=400):
    """Makes processes up to `limit`; says how many it got."""
    made = 0
    refused = "none"
    try:
        for _ in range(limit):
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            made += 1
    except OSError as error:
        refused = error.strerror
    return f"made {'all' if made == limit else 'fewer'}, refused: {refused}"


@tool
def spin(seconds=1.0):
    """Burns CPU in two processes for `seconds` of wall-clock time."""
    child = os.fork()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "burnt"


@tool
def daemon():
    """Leaves a process behind that has a session of its own and ignores what it can."""
    import signal
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_IGN)
            wait_for_ever()
        os._exit(0)
    return "left one behind"


@tool
def stubborn():
    """Ignores every signal that can be ignored, and never answers."""
    import signal
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    wait_for_ever()


@tool
def scratch(size=1 << 30):
    """Fills /tmp up to `size`."""
    def fill():
        block = b"\0" * (1 << 20)
        with open("/tmp/fill", "wb", buffering=0) as file:
            for _ in range(size >> 20):
                file.write(block)
    return errno_of(fill)


@tool
def descriptors(limit=1 << 20):
    """Opens files up to `limit`; gives the error."""
    taken = []

    def take():
        for _ in range(limit):
            taken.append(os.open("/dev/null", os.O_RDONLY))
    result = errno_of(take)
    for number in taken:
        os.close(number)
    return result


@tool
def read(path):
    """Reads a file; its text, or the error."""
    text = []

    def load():
        with open(path, encoding="utf-8", errors="replace") as file:
            text.append(file.read(4096))
    result = errno_of(load)
    return text[0] if text else result


@tool
def write(path, text="written"):
    """Writes a file; `ok`, or the error."""
    def store():
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    return errno_of(store)


@tool
def connect(host, port):
    """Connects over TCP; `ok`, or the error."""
    import socket
    def attempt():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as end:
            end.settimeout(3)
            end.connect((host, port))
    return errno_of(attempt)


@tool
def facts():
    """What the process sees of itself: user, processes, descriptors, environment."""
    return json.dumps({
        "uid": os.getuid(), "groups": sorted(os.getgroups()), "pid": os.getpid(),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:3],
        "environment": sorted(os.environ), "cwd": os.getcwd(),
    })


def refuse(ident, code, message):
    """A JSON-RPC error."""
    put({"jsonrpc": "2.0", "id": ident, "error": {"code": code, "message": message}})


def give(ident, result, modern):
    """A result; in the modern era every one says that it is complete."""
    put({"jsonrpc": "2.0", "id": ident, "result": {**result, "resultType": "complete"} if modern else result})


def ask(ident, params):
    """A modern question to the client. Its state is good for the process that made it and no other."""
    if "requestState" not in params:
        put({"jsonrpc": "2.0", "id": ident, "result": {
            "resultType": "input_required", "requestState": SECRET,
            "inputRequests": {"name": {"method": "elicitation/create", "params": {
                "mode": "form", "message": "Your name?", "requestedSchema": {
                    "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}}}}}})
    elif params["requestState"] != SECRET:
        refuse(ident, -32602, "the state is of another process")
    else:
        name = params["inputResponses"]["name"]["content"]["name"]
        give(ident, {"content": [{"type": "text", "text": f"hello {name}"}]}, True)


def call(ident, params, modern):
    """`tools/call`."""
    name = params.get("name")
    token = params.get("_meta", {}).get("progressToken")
    if name == "ask" and modern:
        ask(ident, params)
        return
    function = TOOLS.get(name)
    if function is None:
        refuse(ident, -32602, f"no tool {name}")
        return
    news.token = token
    twice.ident = ident
    if name != "news":
        started(token)
    try:
        text, failed = function(**params.get("arguments", {})), False
    except (ValueError, TypeError, MemoryError) as error:
        text, failed = str(error), True
    # Written by hand, because a number form, an order and an unknown member must come through as they are.
    put_text = json.dumps(text)
    kind = ',"resultType":"complete"' if modern else ""
    flag = ',"isError":true' if failed else ""
    sys.stdout.write(f'{{"result" : {{"content":[{{"type":"text","text":{put_text},"extra":1.0}}]{flag}{kind}}},'
                     f'"jsonrpc":"2.0","id":{json.dumps(ident)}}}\n')
    sys.stdout.flush()


def page(params):
    """One prompt a page; the cursor is good for this process and no other."""
    cursor = params.get("cursor")
    if cursor is None:
        number = 0
    elif cursor.startswith(SECRET):
        number = int(cursor[len(SECRET):])
    else:
        return None
    result = {"prompts": [{"name": f"prompt-{number}"}]}
    if number < 4:
        result["nextCursor"] = f"{SECRET}{number + 1}"
    return result


def serve(message):
    """One message."""
    method, ident, params = message.get("method"), message.get("id"), message.get("params") or {}
    modern = "io.modelcontextprotocol/protocolVersion" in params.get("_meta", {})
    lasting = {"ttlMs": 60000, "cacheScope": "private"} if modern else {}
    capabilities = {"tools": {}, "prompts": {}, "logging": {}}
    if ident is None:
        return
    if method == "initialize":
        give(ident, {"protocolVersion": params["protocolVersion"], "capabilities": capabilities,
                     "serverInfo": {"name": "tiny", "version": "1"}}, False)
    elif method == "server/discover" and MODERN:
        give(ident, {"supportedVersions": ["2026-07-28"], "capabilities": capabilities, **lasting,
                     "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "tiny", "version": "1"}}}, True)
    elif method == "tools/list":
        give(ident, {"tools": [{"name": name, "description": function.__doc__, "inputSchema": {"type": "object"}}
                               for name, function in [*TOOLS.items(), *([("ask", call)] if MODERN else [])]], **lasting}, modern)
    elif method == "prompts/list":
        result = page(params)
        if result is None:
            refuse(ident, -32602, "the cursor is of another process")
        else:
            give(ident, {**result, **lasting}, modern)
    elif method == "tools/call":
        call(ident, params, modern)
    elif method in ("ping", "logging/setLevel"):
        give(ident, {}, False)
    else:
        refuse(ident, -32601, "Method not found")


for incoming in sys.stdin:
    serve(json.loads(incoming))
