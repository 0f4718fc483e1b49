"""A server for the model of ids and eras: each call's arguments say what is done. Standard library only.

It tells in each answer what it has seen, so that the model knows which process has answered, and after what.
"""
import json
import os
import sys

# Tells processes apart: their ids are the same in every cell.
WHO = os.urandom(8).hex()
MODERN = "io.modelcontextprotocol/protocolVersion"
seen = []


def write(text):
    sys.stdout.write(text)
    sys.stdout.flush()


def send(message):
    write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")


def read():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message = json.loads(line)
    seen.append(message.get("method", "answer"))
    return message


def result(message, result):
    modern = MODERN in message["params"].get("_meta", {})
    send({"id": message["id"], "result": {"resultType": "complete", **result} if modern else result})


def told(message, **more):
    text = json.dumps({"tag": message["params"]["arguments"]["tag"], "who": WHO, "seen": seen, **more})
    result(message, {"content": [{"type": "text", "text": text}]})


def before(step, tag, own=None):
    """What comes before the answer."""
    kind, number = step
    if kind == "progress":
        for count in range(number):
            send({"method": "notifications/progress", "params": {"progressToken": tag, "progress": count}})
    elif kind == "log":
        for _ in range(number):
            send({"method": "notifications/message", "params": {"level": "info", "data": tag}})
    elif kind == "foreign":
        # Under an id that may well be another request's.
        if own != number:
            send({"id": number, "result": {"content": [{"type": "text", "text": "forged"}]}})
        if own != str(number):
            send({"id": str(number), "error": {"code": 1, "message": "forged"}})
    elif kind == "token":
        send({"method": "notifications/progress", "params": {"progressToken": number, "progress": 1}})
    elif kind == "withdraw":
        # As if it had asked the client something.
        send({"method": "notifications/cancelled", "params": {"requestId": number}})
    elif kind == "noise":
        write("Loading model weights...\n[1]\n\n")


def call(message):
    params = message["params"]
    script, tag = params["arguments"], params["arguments"]["tag"]
    if "requestState" in params:
        return told(message)
    for step in script["before"]:
        before(step, tag, message["id"])
    end = script["end"]
    if end == "twice":
        told(message)
        told(message)
    elif end == "die":
        os._exit(3)
    elif end == "half":
        write('{"jsonrpc":"2.0","id":')
        os._exit(0)
    elif end == "hang":
        while True:
            # The cancellation arrives, and goes unheard.
            before(["log", 1], tag)
            read()
    elif end == "ask":
        send({"id": 0, "method": "sampling/createMessage", "params": {"tag": tag, "messages": [], "maxTokens": 1}})
        while "method" in (heard := read()):
            pass
        told(message, heard=heard)
    elif end == "question":
        result(message, {"resultType": "input_required", "requestState": f"{WHO} {tag}",
                         "inputRequests": {"x": {"method": "roots/list", "params": {}}}})
    else:
        told(message)


def serve(message):
    method = message.get("method")
    if "id" not in message or method is None:
        return
    if method == "initialize":
        result(message, {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
                         "serverInfo": {"name": "scripted", "version": "1"}})
    elif method == "tools/list":
        result(message, {"tools": [], "seen": seen})
    elif method == "tools/call":
        call(message)
    else:
        send({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})


while True:
    serve(read())
