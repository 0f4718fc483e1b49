"""A server that keeps in mind what it was told, and works on several requests at once. Standard library only."""
import errno
import json
import os
import socket
import sys
import threading

count = 0
watched = set()
listening = {}
held = {}
tasks = {}
lock = threading.Lock()
WHO = os.urandom(8).hex()
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


def send(*messages):
    with lock:
        sys.stdout.write("".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages))
        sys.stdout.flush()


def answer(id, text="ok", **more):
    send({"id": id, "result": {"content": [{"type": "text", "text": str(text)}], **more}})


def hold(id, name):
    """Answers when somebody lets go."""
    held[name] = threading.Event()
    send({"method": "notifications/message", "params": {"level": "info", "data": "held " + name}})
    held[name].wait()
    answer(id, "let go")


def reach(host, port, says=None):
    """What is said there to a greeting, or to what is to be said, or why nothing is."""
    try:
        if host.startswith("/"):
            there = socket.socket(socket.AF_UNIX)
            there.connect(host)
        else:
            there = socket.create_connection((host, port), timeout=10)
        with there:
            there.sendall((says or "hello").encode())
            if says is None:
                there.shutdown(socket.SHUT_WR)
            return there.makefile("rb").read().decode()
    except socket.gaierror:
        return "no such name"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def hear(id, port):
    """Answers with what the first says who comes."""
    with socket.create_server(("127.0.0.1", port)) as there:
        stream, _ = there.accept()
        with stream:
            said = stream.makefile("rb").read().decode()
            stream.sendall(said.upper().encode())
    answer(id, said)


def call(id, params):
    global count
    name, args = params["name"], params.get("arguments", {})
    if name == "count":
        count += 1
        answer(id, count)
    elif name == "who":
        answer(id, WHO)
    elif name == "hold":
        threading.Thread(target=hold, args=(id, args["name"]), daemon=True).start()
    elif name == "hear":
        threading.Thread(target=hear, args=(id, args["port"]), daemon=True).start()
    elif name == "let-go":
        held[args["name"]].set()
        answer(id)
    elif name == "touch":
        send({"method": "notifications/resources/updated", "params": {"uri": args["uri"]}})
        for subscription in listening:
            send({"method": "notifications/resources/updated",
                  "params": {"uri": args["uri"], "_meta": {SUBSCRIPTION: subscription}}})
        answer(id)
    elif name == "watched":
        answer(id, sorted(watched))
    elif name in ("reach", "peek"):
        answer(id, reach(args["host"], args["port"], args.get("says")))
    elif name == "grow":
        send({"method": "notifications/tools/list_changed"})
        answer(id)
    elif name == "socket":
        try:
            socket.socket(socket.AF_UNIX)
            answer(id, "opened")
        except OSError as error:
            answer(id, errno.errorcode[error.errno])
    elif name == "families":
        for family in range(100, 140):
            try:
                socket.socket(family)
            except OSError:
                continue
        answer(id)
    elif name == "long":
        answer(id, "x" * args["size"])
    elif name == "task":
        tasks["t1"] = "working"
        send({"id": id, "result": {"task": {"taskId": "t1", "status": "working"}}})
    elif name == "die":
        sys.stderr.write("last words\n")
        os._exit(3)
    elif name == "lost":
        answer(id, "Session not found: 7", isError=True)
    elif name == "ask-client":
        send({"id": "mine", "method": "sampling/createMessage", "params": {}})
        held["mine"] = id
    else:
        send({"id": id, "error": {"code": -32602, "message": "unknown tool"}})


def main():
    for line in sys.stdin:
        message = json.loads(line)
        method, id, params = message.get("method"), message.get("id"), message.get("params", {})
        if method == "initialize":
            send({"id": id, "result": {"protocolVersion": params["protocolVersion"], "serverInfo": {"name": "kept", "version": "1"},
                  "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "tasks": {"list": {}}}}})
        elif method == "tools/list":
            send({"id": id, "result": {"tools": [{"name": "count"}], "who": WHO, "count": count}})
        elif method == "resources/subscribe":
            watched.add(params["uri"])
            send({"id": id, "result": {}})
        elif method == "resources/unsubscribe":
            watched.discard(params["uri"])
            send({"id": id, "result": {}})
        elif method == "subscriptions/listen":
            listening[id] = params["notifications"]
            send({"method": "notifications/subscriptions/acknowledged",
                  "params": {"notifications": params["notifications"], "_meta": {SUBSCRIPTION: id}}})
        elif method == "notifications/cancelled":
            listening.pop(params["requestId"], None)
        elif method == "tasks/get":
            send({"method": "notifications/tasks/status", "params": {"taskId": "t1", "status": tasks["t1"]}})
            send({"id": id, "result": {"taskId": "t1", "status": tasks["t1"]}})
        elif method == "tools/call":
            call(id, params)
        elif method is None and id == "mine":
            answer(held["mine"], json.dumps(message["result"]))
        elif id is not None:
            send({"id": id, "error": {"code": -32601, "message": "server says: " + method}})


main()
