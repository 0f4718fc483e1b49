"""A server for the session tests: what the tool's name says, it does. Standard library only."""
import base64
import errno
import json
import os
import signal
import socket
import sys
import time
import urllib.parse

ready = {"slow": False, "roots": None, "level": None, "requests": 0, "work": 0, "interrupted": False}
# Tells processes apart: their ids are the same in every cell.
WHO = os.urandom(8).hex()


def write(text):
    sys.stdout.write(text)
    sys.stdout.flush()


def send(*messages):
    write("".join(json.dumps(message) + "\n" for message in messages))


def read():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def answer(id, text="ok"):
    send({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}], "odd": 1.0}})


def question(id, *more, **state):
    asked = {"name": {"method": "elicitation/create", "params": {"message": "Your name?"}}}
    result = {"resultType": "input_required", "inputRequests": asked, **state}
    send({"jsonrpc": "2.0", "id": id, "result": result}, *more)


def ask(id, name, params):
    """Asks as often as it is told to. Its states are good for this process alone."""
    owner, _, asked = params.get("requestState", WHO + " 0").partition(" ")
    if owner != WHO:
        send({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "the state is of another process"}})
    elif int(asked) >= params["arguments"].get("questions", 1):
        if "hang" in name:
            time.sleep(60)
        answer(id, "thank you")
    else:
        if "slowly" in name:
            # Its input ends while it is at work.
            time.sleep(0.2)
        # In one write, so that nothing of it comes after the client's answer.
        talk = [
            {"jsonrpc": "2.0", "id": id, "result": {"content": []}},
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "hi"}},
            {"jsonrpc": "2.0", "method": "notifications/progress",
             "params": {"progressToken": params["_meta"]["progressToken"], "progress": 1}},
        ] if "talk" in name else []
        question(id, *talk, requestState="%s %d" % (WHO, int(asked) + 1))
        if "die" in name:
            sys.stderr.write("last words")
            sys.exit(3)
        if "stay" in name:
            time.sleep(60)


def forms(secret):
    """A secret as programs write it."""
    raw = secret.encode()
    encoded = [base64.b64encode(before + raw + b"!") for before in (b"", b"a", b"ab")]
    encoded += [base64.urlsafe_b64encode(raw).rstrip(b"="), raw.hex().encode(), raw.hex().upper().encode()]
    return [secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)] + [text.decode() for text in encoded]


def say(id, args, params):
    """Says a secret in every form, on every way, in pieces of so many bytes."""
    secret = os.environ["SECRET"] if args.get("from") != "file" else open("/tmp/secret").read()

    def slowly(to, text):
        text = text.encode()
        for at in range(0, len(text), args.get("pieces", len(text))):
            os.write(to, text[at:at + args.get("pieces", len(text))])
    for form in forms(secret):
        token = params["_meta"]["progressToken"]
        data = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": form}}
        step = {"jsonrpc": "2.0", "method": "notifications/progress",
                "params": {"progressToken": token, "progress": 1, "message": "at " + form}}
        slowly(1, json.dumps(data) + "\n" + json.dumps(step) + "\n")
        slowly(2, form + "\n")
    slowly(1, "no message: %s\n" % secret)
    # Often: the name of one that is refused is read at once or not at all.
    for _ in range(200):
        try:
            open(args.get("below", "") + "/" + secret)
        except OSError:
            pass
    text = " ".join(forms(secret)) * args.get("times", 1)
    escaped = "".join("\\u%04x" % ord(letter) for letter in secret)
    result = {"content": [{"type": "text", "text": text}, {"type": "text", "text": "ESCAPED"}]}
    answer = json.dumps({"jsonrpc": "2.0", "id": id, "result": result}).replace("ESCAPED", escaped)
    slowly(1, answer + "\n")


def call(id, params):
    name, args = params["name"], params.get("arguments", {})
    if name == "who":
        answer(id, WHO)
    elif name == "request":
        answer(id, json.dumps(params))
    elif name.startswith("result"):
        # The result as it is given, so that it can be wrong in every way; filled up in front of it.
        write('{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"%s"}]%s}}\n'
              % (json.dumps(id), "x" * args.get("fill", 0), args.get("more", "")))
    elif name.startswith("say"):
        say(id, args, params)
    elif name == "environment":
        answer(id, json.dumps(dict(os.environ)))
    elif name.startswith("list"):
        answer(id, " ".join(sorted(os.listdir(args["path"]))))
    elif name in ("read", "read-listed"):
        try:
            with open(args["path"]) as file:
                answer(id, file.read())
        except OSError as error:
            answer(id, errno.errorcode[error.errno])
    elif name == "read-confined":
        # Landlock's system calls by number: a ruleset that handles reading, entered without a rule.
        import ctypes
        call_kernel, handled = ctypes.CDLL(None, use_errno=True).syscall, ctypes.c_ulonglong(4)
        ruleset = call_kernel(444, ctypes.byref(handled), ctypes.c_size_t(8), 0)
        entered = call_kernel(446, ruleset, 0)
        try:
            with open(args["path"]):
                answer(id, "read")
        except OSError as error:
            answer(id, "%s %s" % (entered, errno.errorcode[error.errno]))
    elif name in ("append", "change", "change-listed"):
        try:
            # A file that is changed has to be there.
            with open(args["path"], "a" if name == "append" else "r+") as file:
                file.write("more")
            answer(id)
        except OSError as error:
            answer(id, errno.errorcode[error.errno])
    elif name == "leave":
        for what, *paths in args["do"]:
            if what == "append":
                with open(paths[0], "a") as file:
                    file.write("more")
            else:
                getattr(os, what)(*paths)
        if "fill" in args:
            with open(args["fill"][0], "wb") as file:
                file.write(os.urandom(args["fill"][1]))
        if "long" in args:
            return answer(id, "x" * args["long"])
        failed = {"isError": True} if "fails" in args else {}
        meta = {"_meta": {"dev.toolcell/changes": "forged", "own": 1}}
        send({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "left"}], **meta, **failed}})
        if "late" in args:
            # What is still written before the server is ended belongs to the call.
            with open(args["late"], "a") as file:
                file.write("late")
    elif name == "start":
        with open(args["path"], "wb") as file:
            file.write(b"#!/bin/true\n")
        os.chmod(args["path"], 0o755)
        try:
            os.execv(args["path"], ["program"])
        except OSError as error:
            answer(id, errno.errorcode[error.errno])
    elif name.startswith("socket"):
        try:
            socket.socket(socket.AF_UNIX)
            answer(id, "opened")
        except OSError as error:
            if name == "socket":
                answer(id, errno.errorcode[error.errno])
            elif name == "socket-fail":
                content = [{"type": "text", "text": "no socket"}]
                send({"jsonrpc": "2.0", "id": id, "result": {"_meta": {"own": 1}, "content": content, "isError": True}})
            else:
                sys.exit(4)
    elif name == "chroot":
        try:
            os.chroot("/a/path")
            answer(id, "changed")
        except OSError as error:
            answer(id, errno.errorcode[error.errno])
    elif name == "maybe":
        if args.get("bad"):
            try:
                os.chroot("/a/path")
            except OSError:
                pass
        answer(id)
    elif name == "verbatim":
        write('{ "result":{"content":[],"odd":1.0,"z":1e2,"a":"\\u0061"} ,"id":%s,"jsonrpc":"2.0","extra":[]}\n' % json.dumps(id))
    elif name == "state":
        answer(id, json.dumps({"roots": ready["roots"], "level": ready["level"]}))
    elif name == "wrong-id":
        answer("stolen")
        answer(id)
    elif name == "two-answers":
        answer(id)
        answer(id, "again")
    elif name == "worked":
        answer(id, "interrupted" if ready["interrupted"] else "at work" if ready["work"] else "worked")
    elif name == "noise":
        write("Server running on stdio\n\x1b[31m\n")
        answer(id)
    elif name == "only-noise":
        write("no answer from me\n")
        sys.exit(0)
    elif name == "half-line":
        write('{"jsonrpc":"2.0","id":')
        sys.exit(0)
    elif name == "die":
        sys.stderr.write("first\nlast words\n")
        sys.exit(3)
    elif name == "close":
        os.close(1)
        time.sleep(60)
    elif name == "silent":
        time.sleep(60)
    elif name == "under-way":
        token = params["_meta"]["progressToken"]
        send({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
        time.sleep(60)
    elif name == "burst":
        # In one write, which a pipe takes whole.
        token = params["_meta"]["progressToken"]
        steps = [{"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": at}}
                 for at in range(20)]
        send(*steps, {"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "ok"}]}})
    elif name == "flood":
        while True:
            write("x" * 65536)
    elif name == "ping-flood":
        pings = '{"jsonrpc":"2.0","id":0,"method":"ping"}\n\n\n' * 1000
        while True:
            write(pings)
    elif name == "newlines":
        while True:
            write("\n" * 65536)
    elif name == "deep":
        write('{"jsonrpc":"2.0","id":%s,"result":{"content":%s%s}}\n' % (json.dumps(id), "[" * 100000, "]" * 100000))
        answer(id)
    elif name == "notify-flood":
        token = json.dumps(params["_meta"]["progressToken"])
        step = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1}}\n' % token
        while True:
            write(step * 100)
    elif name == "dribble":
        while True:
            write(" ")
            time.sleep(0.01)
    elif name == "flood-stderr-of-gigabytes":
        for _ in range(20000):
            os.write(2, b"y" * 65536)
        answer(id)
    elif name == "flood-stderr":
        for _ in range(200):
            sys.stderr.write("y" * 65536)
        answer(id)
    elif name == "stay":
        answer(id)
        while True:
            time.sleep(60)
    elif name == "ask-client":
        send({"jsonrpc": "2.0", "id": 0, "method": "sampling/createMessage", "params": {"_meta": {"progressToken": 5}}})
        answer(id, json.dumps(read()))
    elif name == "ask-and-say-so":
        send({"jsonrpc": "2.0", "id": 0, "method": "sampling/createMessage", "params": {}})
        send({"jsonrpc": "2.0", "method": "notifications/progress",
              "params": {"progressToken": params["_meta"]["progressToken"], "progress": 1}})
        answer(id, json.dumps(read()))
    elif name == "ask-nobody":
        send({"jsonrpc": "2.0", "id": 0, "method": "files/steal"})
        answer(id, json.dumps(read()["error"]["code"]))
    elif name == "progress":
        for token in ("other", params["_meta"]["progressToken"]):
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "hi"}})
        answer(id)
    elif name == "talk-after-cancel":
        cancelled = read()
        sys.stderr.write(json.dumps(cancelled) + "\n")
        sys.stderr.flush()
        answer(id, cancelled["method"])
        send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "late"}})
        time.sleep(60)
    elif name == "tool-error":
        send({"jsonrpc": "2.0", "id": id, "result": {"isError": True, "content": []}})
    elif name.startswith("ask-without-state"):
        ready["requests"] += 1
        if "inputResponses" in params:
            answer(id, "request %d" % ready["requests"])
        else:
            question(id)
    elif name.startswith("ask"):
        ask(id, name, params)
    elif name.startswith("huge"):
        text = "é\\n" * args["pieces"]
        first = name.endswith("first")
        shown = 99 if "wrong" in name else id
        write('{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"' % json.dumps(shown) if first
              else '{"result":{"content":[{"type":"text","text":"')
        write(text)
        if "broken" in name:
            write("\x01")
        if "torn" in name:
            sys.exit(1)
        if "stuck" in name:
            time.sleep(60)
        write('"}],"isError":false}}\n' if first else '"}],"isError":false},"jsonrpc":"2.0","id":%s}\n' % json.dumps(shown))
    else:
        send({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "unknown tool"}})


def go_on(*_):
    """A process goes on that was stopped: with work left, if that was too early."""
    ready["interrupted"] |= ready["work"] > 0


def work_on():
    """From one answer to the next, for a time."""
    ready["work"] = max(0, ready["until"] - time.monotonic())
    if ready["work"]:
        send({"jsonrpc": "2.0", "id": "w", "method": "ping"})


def introduce(id, result):
    """Says what it is, with the members that stand in a file, as they stand there: they may be there twice."""
    more = ""
    if "SAYS" in os.environ:
        with open(os.environ["SAYS"]) as file:
            more = file.read()
    write('{"jsonrpc":"2.0","id":%s,"result":%s%s}}\n' % (json.dumps(id), json.dumps(result)[:-1], more))


def main():
    lists = 0
    signal.signal(signal.SIGCONT, go_on)
    # Written to, so that it is held.
    _ballast = b"x" * int(os.environ.get("BALLAST", "0"))
    while True:
        message = read()
        method, id = message.get("method"), message.get("id")
        if method and method == os.environ.get("DIE"):
            sys.exit(5)
        if method == "initialize":
            asked = message["params"]
            ready["roots"] = [] if "roots" in asked["capabilities"] else None
            ready["slow"] = asked["capabilities"].get("roots", {}).get("slow", False)
            version = "1999-01-01" if os.path.exists(os.environ.get("LIE", "/nonexistent")) else asked["protocolVersion"]
            tools = {} if "TOOLLESS" in os.environ else {"tools": {}}
            introduce(id, {"protocolVersion": version, "serverInfo": {"name": "fixture", "version": "1"},
                           "capabilities": {**tools, "logging": {}, "resources": {"subscribe": True}}})
        elif method == "notifications/initialized":
            send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            if "STRAY" in os.environ:
                answer("stray")
            if "WORK" in os.environ:
                ready["until"] = time.monotonic() + 1
                work_on()
            if ready["slow"]:
                time.sleep(0.2)
            if ready["roots"] is not None:
                send({"jsonrpc": "2.0", "id": "r", "method": "roots/list"})
        elif method is None and id == "w":
            work_on()
        elif method is None and id == "r":
            ready["roots"] = message["result"]["roots"]
        elif method == "logging/setLevel":
            ready["level"] = message["params"]["level"]
            send({"jsonrpc": "2.0", "id": id, "result": {}})
        elif method == "server/discover" and "SAYS" in os.environ:
            introduce(id, {"supportedVersions": ["2026-07-28"], "capabilities": {},
                           "serverInfo": {"name": "fixture", "version": "1"}})
        elif method == "server/discover":
            send({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}})
        elif method == "tools/list" and "TOOLLESS" not in os.environ:
            lists += 1
            first = "cursor" not in message.get("params", {})
            tools = [{"name": name} for name in os.environ.get("TOOLS", "").split()]
            # Those with a schema are on the second page.
            tools += [] if first else json.loads(os.environ.get("SCHEMAS", "[]"))
            if not first and "TOOLS_FILE" in os.environ:
                with open(os.environ["TOOLS_FILE"]) as file:
                    tools += [item for item in json.load(file) if "uri" not in item]
            send({"jsonrpc": "2.0", "id": id, "result": {"tools": tools, "who": WHO, "lists": lists,
                  **({"nextCursor": "c"} if first else {})}})
            if message.get("params", {}).get("cursor") == "change":
                send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        elif method == "resources/list" and "TOOLS_FILE" in os.environ:
            with open(os.environ["TOOLS_FILE"]) as file:
                resources = [item for item in json.load(file) if "uri" in item]
            send({"jsonrpc": "2.0", "id": id, "result": {"resources": resources}})
        elif method in ("tools/call", "prompts/get"):
            call(id, message["params"])
        elif id is not None:
            send({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "server says: " + method}})


main()
