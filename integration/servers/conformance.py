"""The server that the official conformance suite wants to test: its tools, prompts, resources and questions, over stdio.

Neighbours: `bridge` lets the suite reach it over HTTP, bare and in cells; `scripts/conformance` compares the two.
Never: misbehaves (`tiny` does), or uses an SDK: what is measured is the way to a server, not an SDK's opinions.

Speaks both eras of the protocol: the first `initialize` makes a process a legacy session, and what carries a modern
version in its `_meta` is modern at any time. Calls run in threads of their own; all else is answered in order.
"""

import base64
import hmac
import json
import os
import queue
import struct
import sys
import threading
import time
import zlib

MODERN = "2026-07-28"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
INFO = {"name": "conformance", "version": "1"}
# Held by this process alone, as real servers hold what seals their states.
SECRET = os.urandom(16)
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
PAUSE = 0.05

write_lock = threading.Lock()


class Refused(Exception):
    """A JSON-RPC error."""

    def __init__(self, code, message, data=None):
        super().__init__(message)
        self.error = {"code": code, "message": message, **({} if data is None else {"data": data})}


def put(message):
    """Writes one message."""
    line = json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")) + "\n"
    with write_lock:
        sys.stdout.write(line)
        sys.stdout.flush()


def note(method, params):
    """Writes a notification."""
    put({"method": method, "params": params})


def png():
    """One red pixel."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")


def wav():
    """One silent sample."""
    return struct.pack("<4sI4s4sIHHIIHH4sIh", b"RIFF", 38, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 2, 0)


def text(words):
    """A block of text."""
    return {"type": "text", "text": words}


def image():
    """A block with an image."""
    return {"type": "image", "data": base64.b64encode(png()).decode(), "mimeType": "image/png"}


def resource(uri, kind, words):
    """A block with a resource."""
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": words}}


def form(message, **properties):
    """A question to the user; every property is required."""
    return {"message": message, "requestedSchema": {
        "type": "object", "properties": properties, "required": list(properties)}}


STRING, BOOLEAN = {"type": "string"}, {"type": "boolean"}
NAME = ("elicitation/create", form("What is your name?", name=STRING))
CONFIRM = ("elicitation/create", form("Please confirm", ok=BOOLEAN))
ROOTS = ("roots/list", {})


def sample(question, tokens=100):
    """A question to the model."""
    return ("sampling/createMessage", {
        "messages": [{"role": "user", "content": text(question)}], "maxTokens": tokens})


def titled(name, *pairs):
    """Choices with titles."""
    return {name: [{"const": value, "title": title} for value, title in pairs]}


def seal(**state):
    """A state that only this process can have made."""
    body = json.dumps({**state, "once": os.urandom(6).hex()})
    return json.dumps({"body": body, "seal": hmac.new(SECRET, body.encode(), "sha256").hexdigest()})


def unseal(raw):
    """What was sealed."""
    try:
        sealed = json.loads(raw)
        right = hmac.new(SECRET, sealed["body"].encode(), "sha256").hexdigest()
        if hmac.compare_digest(sealed["seal"], right):
            return json.loads(sealed["body"])
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise Refused(-32602, "the state is not one that this server has sealed")


class Request:
    """One request, and all that belongs to its answer."""

    def __init__(self, server, ident, method, params):
        self.server = server
        self.ident = ident
        self.method = method
        self.params = params
        meta = params.get("_meta")
        self.meta = meta if isinstance(meta, dict) else {}
        self.modern = VERSION in self.meta or not server.legacy

    def progress(self, step, total):
        """Progress, if the client wants to hear it."""
        if (token := self.meta.get("progressToken")) is not None:
            note("notifications/progress", {"progressToken": token, "progress": step, "total": total})

    def log(self, words):
        """A message of the log, if the client wants to hear it."""
        least = self.meta.get(LOG_LEVEL) if self.modern else self.server.level
        if least in LEVELS and LEVELS.index(least) <= LEVELS.index("info"):
            note("notifications/message", {"level": "info", "logger": "conformance", "data": words})

    def needs(self, capability):
        """Refuses a client that has not declared a capability."""
        if capability not in self.meta.get(CAPABILITIES, {}):
            raise Refused(-32021, f"this needs the client's capability {capability}",
                          {"requiredCapabilities": {capability: {}}})

    def responses(self):
        """The client's answers to questions: what is no answer is none."""
        given = self.params.get("inputResponses")
        return {key: value for key, value in given.items() if isinstance(value, dict)} if isinstance(given, dict) else {}

    def ask(self, state=None, **questions):
        """The result that asks."""
        requests = {key: {"method": method, "params": params} for key, (method, params) in questions.items()}
        return {"resultType": "input_required", "inputRequests": requests,
                **({} if state is None else {"requestState": state})}

    def word(self, key, member):
        """One member of one answer."""
        content = self.responses()[key].get("content")
        return content.get(member) if isinstance(content, dict) else None


TOOLS = {}


def tool(*eras, properties=None, schema=None):
    """Makes a function callable as a tool of the eras: `l` and `m`."""
    def register(function):
        shape = schema or {"type": "object", "properties": properties or {}, "required": list(properties or {})}
        TOOLS[function.__name__] = (eras or ("l", "m"), shape, function)
        return function
    return register


CONTENTS = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [image()],
    "test_audio_content": [{"type": "audio", "data": base64.b64encode(wav()).decode(), "mimeType": "audio/wav"}],
    "test_embedded_resource": [resource("test://embedded-resource", "text/plain",
                                        "This is an embedded resource content.")],
    "test_multiple_content_types": [
        text("Multiple content types test:"), image(),
        resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')],
    # Its HTTP stream is to be closed meanwhile, which nobody can ask for over stdio.
    "test_reconnection": [text("done")],
}


def content(request, _arguments):
    """Gives what the tool's name says."""
    return CONTENTS[request.params["name"]]


for each in CONTENTS:
    TOOLS[each] = (("l", "m"), {"type": "object", "properties": {}}, content)


@tool()
def test_error_handling(_request, _arguments):
    """Always an error."""
    raise ValueError("This tool intentionally returns an error for testing")


@tool()
def test_tool_with_progress(request, _arguments):
    """Progress before the answer."""
    for step in (0, 50, 100):
        request.progress(step, 100)
        # Notifications have to come one by one, not in one piece with the answer: the suite wants this pause.
        time.sleep(PAUSE)
    return [text("done")]


@tool("l")
def test_tool_with_logging(request, _arguments):
    """Messages of the log before the answer."""
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        request.log(words)
        time.sleep(PAUSE)
    return [text("logged")]


@tool("l", properties={"prompt": STRING})
def test_sampling(request, arguments):
    """Asks the client's model."""
    answer = request.server.ask(*sample(arguments["prompt"]))
    return [text(f"LLM response: {answer['content']['text']}")]


def elicited(request, params):
    """What the user has answered."""
    answer = request.server.ask("elicitation/create", params)
    return [text(f"action={answer['action']}, content={json.dumps(answer.get('content'))}")]


@tool("l", properties={"message": STRING})
def test_elicitation(request, arguments):
    """Asks the user."""
    return elicited(request, form(arguments["message"], username=STRING, email=STRING))


@tool("l")
def test_elicitation_sep1034_defaults(request, _arguments):
    """Asks with a default of each kind."""
    return elicited(request, form(
        "Please look at the defaults", name={**STRING, "default": "John Doe"},
        age={"type": "integer", "default": 30}, score={"type": "number", "default": 95.5},
        status={**STRING, "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={**BOOLEAN, "default": True}))


@tool("l")
def test_elicitation_sep1330_enums(request, _arguments):
    """Asks with choices of each kind."""
    plain = {**STRING, "enum": ["option1", "option2", "option3"]}
    pairs = (("value1", "First"), ("value2", "Second"), ("value3", "Third"))
    return elicited(request, form(
        "Please choose", untitledSingle=plain, titledSingle={**STRING, **titled("oneOf", *pairs)},
        legacyEnum={**STRING, "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
        untitledMulti={"type": "array", "items": plain},
        titledMulti={"type": "array", "items": titled("anyOf", *pairs)}))


@tool(schema={
    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": STRING, "city": STRING}}},
    "properties": {"name": STRING, "address": {"$ref": "#/$defs/address"}, "phone": STRING, "email": STRING,
                   "contactMethod": {**STRING, "enum": ["phone", "email"]}},
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]}, "else": {"required": ["email"]}, "additionalProperties": False})
def json_schema_2020_12_tool(_request, arguments):
    """Arguments with a schema of many keywords."""
    return [text(json.dumps(arguments))]


@tool("m", properties={"region": {**STRING, "x-mcp-header": "Region"}})
def test_header(_request, arguments):
    """An argument that HTTP carries in a header as well."""
    return [text(arguments["region"])]


@tool("m")
def test_missing_capability(request, _arguments):
    """Needs a client with a model."""
    request.needs("sampling")
    return [text("the client has a model")]


@tool("m")
def test_streaming_elicitation(request, _arguments):
    """Progress, and then a question."""
    request.needs("elicitation")
    request.progress(50, 100)
    return [text("asked")] if request.responses() else request.ask(name=NAME)


@tool("m")
def test_logging_tool(request, _arguments):
    """A message of the log, if the request wants any."""
    request.log("evaluated")
    return [text("evaluated")]


@tool("m")
def test_trigger_tool_change(request, _arguments):
    """Says that the list of tools has changed."""
    request.server.changed("toolsListChanged", "notifications/tools/list_changed")
    return [text("changed")]


@tool("m")
def test_trigger_prompt_change(request, _arguments):
    """Says that the list of prompts has changed."""
    request.server.changed("promptsListChanged", "notifications/prompts/list_changed")
    return [text("changed")]


@tool("m")
def test_input_required_result_elicitation(request, _arguments):
    """Asks for a name."""
    if "user_name" not in request.responses():
        return request.ask(user_name=NAME)
    return [text(f"Hello, {request.word('user_name', 'name')}!")]


@tool("m")
def test_input_required_result_sampling(request, _arguments):
    """Asks the client's model."""
    if "capital_question" not in request.responses():
        return request.ask(capital_question=sample("What is the capital of France?"))
    return [text(json.dumps(request.responses()["capital_question"].get("content")))]


@tool("m")
def test_input_required_result_list_roots(request, _arguments):
    """Asks for the client's directories."""
    if "client_roots" not in request.responses():
        return request.ask(client_roots=ROOTS)
    return [text(json.dumps(request.responses()["client_roots"].get("roots")))]


@tool("m")
def test_input_required_result_request_state(request, _arguments):
    """Asks with a sealed state."""
    if "confirm" not in request.responses():
        return request.ask(seal(of="request_state"), confirm=CONFIRM)
    unseal(request.params.get("requestState"))
    return [text("state-ok")]


@tool("m")
def test_input_required_result_multiple_inputs(request, _arguments):
    """Asks three things at once."""
    questions = {"user_name": NAME, "greeting": sample("Generate a greeting", 50), "client_roots": ROOTS}
    if questions.keys() - request.responses().keys():
        return request.ask(seal(of="multiple_inputs"), **questions)
    unseal(request.params.get("requestState"))
    return [text("all answered")]


@tool("m")
def test_input_required_result_multi_round(request, _arguments):
    """Asks twice."""
    state = unseal(request.params["requestState"]) if "requestState" in request.params else {}
    if state.get("round") == 2 and "step2" in request.responses():
        return [text(f"{state['name']} likes {request.word('step2', 'color')}")]
    if state.get("round") == 1 and "step1" in request.responses():
        color = ("elicitation/create", form("Step 2: What is your favorite color?", color=STRING))
        return request.ask(seal(round=2, name=request.word("step1", "name")), step2=color)
    return request.ask(seal(round=1), step1=("elicitation/create", form("Step 1: What is your name?", name=STRING)))


@tool("m")
def test_input_required_result_tampered_state(request, _arguments):
    """Knows its own state from a changed one."""
    if "requestState" in request.params:
        unseal(request.params["requestState"])
        return [text("integrity-ok")]
    return request.ask(seal(of="tampered_state"), confirm=CONFIRM)


@tool("m")
def test_input_required_result_capabilities(request, _arguments):
    """Asks only what the client can answer."""
    if request.responses():
        return [text(f"received {', '.join(sorted(request.responses()))}")]
    able = request.meta.get(CAPABILITIES, {})
    questions = {key: question for capability, key, question in (
        ("elicitation", "elicit_input", NAME), ("sampling", "sample_input", sample("Sample request", 50)),
    ) if capability in able}
    return request.ask(seal(of="capabilities"), **questions) if questions else [text("nothing can be asked")]


def said(*contents):
    """Messages of a user."""
    return {"messages": [{"role": "user", "content": content} for content in contents]}


def context_prompt(request, _arguments):
    """A prompt that asks."""
    if "user_context" not in request.responses():
        return request.ask(user_context=("elicitation/create", form("What context should the prompt use?", context=STRING)))
    return said(text(f"Context: {request.word('user_context', 'context')}"))


PROMPTS = {
    "test_simple_prompt": ("lm", (), lambda _, given: said(text("This is a simple prompt for testing."))),
    "test_prompt_with_arguments": ("lm", ("arg1", "arg2"), lambda _, given: said(
        text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"))),
    "test_prompt_with_embedded_resource": ("lm", ("resourceUri",), lambda _, given: said(
        resource(given["resourceUri"], "text/plain", "Embedded resource content for testing."),
        text("Please process the embedded resource above."))),
    "test_prompt_with_image": ("lm", (), lambda _, given: said(image(), text("Please analyze the image above."))),
    "test_input_required_result_prompt": ("m", (), context_prompt),
}
RESOURCES = {
    "test://static-text": ("text/plain", {"text": "This is the content of the static text resource."}),
    "test://static-binary": ("image/png", {"blob": base64.b64encode(png()).decode()}),
    "test://watched-resource": ("text/plain", {"text": "Watched resource content"}),
}
TEMPLATE = ("test://template/", "/data")


def read(uri):
    """The contents of a resource, or none."""
    kind, content = RESOURCES.get(uri, (None, None))
    if content is None and uri.startswith(TEMPLATE[0]) and uri.endswith(TEMPLATE[1]):
        number = uri[len(TEMPLATE[0]):-len(TEMPLATE[1])]
        kind = "application/json"
        content = {"text": json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})}
    return None if content is None else [{"uri": uri, "mimeType": kind, **content}]


class Server:
    """The process's side of the conversation."""

    def __init__(self):
        self.legacy = False
        self.level = "info"
        self.listening = {}
        self.asked = {}
        self.lock = threading.Lock()

    def ask(self, method, params):
        """Asks the client, in the legacy era, and waits for its answer."""
        answer = queue.SimpleQueue()
        with self.lock:
            ident = len(self.asked)
            self.asked[ident] = answer
        put({"id": ident, "method": method, "params": params})
        told = answer.get()
        if "error" in told:
            raise ValueError(f"the client refuses {method}: {told['error'].get('message')}")
        return told["result"]

    def changed(self, wanted, method):
        """Tells every subscription that wants to hear it."""
        with self.lock:
            idents = [ident for ident, wants in self.listening.items() if wants.get(wanted)]
        for ident in idents:
            note(method, {"_meta": {SUBSCRIPTION: ident}})

    def capabilities(self):
        """What this server can."""
        return {"tools": {"listChanged": True}, "prompts": {"listChanged": True}, "completions": {}, "logging": {},
                "resources": {"listChanged": True, "subscribe": True}}

    def answer(self, request):
        """The result of a request; `None`: it has none yet."""
        if request.modern:
            self.check_meta(request)
        era = "m" if request.modern else "l"
        lasting = {"ttlMs": 300_000, "cacheScope": "public"} if request.modern else {}
        params = request.params
        match request.method:
            case "initialize" if not request.modern or VERSION not in request.meta:
                return self.initialize(params)
            # Nothing here changes by itself, so no subscription ever hears of anything.
            case "ping" | "resources/subscribe" | "resources/unsubscribe" if era == "l":
                return {}
            case "logging/setLevel" if era == "l":
                self.level = params["level"]
                return {}
            case "server/discover" if era == "m":
                return {"supportedVersions": [MODERN], "capabilities": self.capabilities(), **lasting}
            case "subscriptions/listen" if era == "m":
                wants = {kind: wanted for kind, wanted in params.get("notifications", {}).items() if wanted}
                with self.lock:
                    self.listening[request.ident] = wants
                    note("notifications/subscriptions/acknowledged",
                         {"notifications": wants, "_meta": {SUBSCRIPTION: request.ident}})
                return None
            case "tools/list":
                return {"tools": [{"name": name, "description": function.__doc__, "inputSchema": schema}
                                  for name, (eras, schema, function) in TOOLS.items() if era in eras], **lasting}
            case "tools/call":
                return self.call(request, era)
            case "prompts/list":
                return {"prompts": [
                    {"name": name, "description": f"The prompt {name}",
                     "arguments": [{"name": each, "description": each, "required": True} for each in arguments]}
                    for name, (eras, arguments, _) in PROMPTS.items() if era in eras], **lasting}
            case "prompts/get":
                eras, arguments, make = PROMPTS.get(params.get("name"), ("", (), None))
                given = params.get("arguments", {})
                if era not in eras or any(name not in given for name in arguments):
                    raise Refused(-32602, "no such prompt, or not all of its arguments")
                return make(request, given)
            case "resources/list":
                return {"resources": [{"uri": uri, "name": uri.partition("//")[2], "description": f"The resource {uri}",
                                       "mimeType": kind} for uri, (kind, _) in RESOURCES.items()], **lasting}
            case "resources/templates/list":
                return {"resourceTemplates": [{"uriTemplate": "{id}".join(TEMPLATE), "name": "template",
                                               "description": "A resource for each id",
                                               "mimeType": "application/json"}], **lasting}
            case "resources/read":
                uri = params.get("uri", "")
                contents = read(uri)
                if contents is None:
                    raise Refused(-32602 if era == "m" else -32002, "Resource not found", {"uri": uri})
                return {"contents": contents, **({"ttlMs": 1000, "cacheScope": "private"} if era == "m" else {})}
            case "completion/complete":
                typed = params["argument"]["value"]
                values = [word for word in ("testing", "tested", "paris", "party") if word.startswith(typed)]
                return {"completion": {"values": values, "total": len(values), "hasMore": False}}
        raise Refused(-32601, "Method not found")

    def initialize(self, params):
        """The legacy handshake."""
        version = params.get("protocolVersion")
        self.legacy = True
        return {"protocolVersion": version if version in LEGACY else LEGACY[-1], "capabilities": self.capabilities(),
                "serverInfo": INFO}

    def check_meta(self, request):
        """A modern request says what it speaks and what its client can."""
        if request.method == "initialize" and VERSION not in request.meta:
            return
        version = request.meta.get(VERSION)
        if not isinstance(version, str) or not isinstance(request.meta.get(CAPABILITIES), dict):
            raise Refused(-32602, f"`_meta` needs `{VERSION}` and `{CAPABILITIES}`")
        if version != MODERN:
            raise Refused(-32022, "Unsupported protocol version", {"supported": [MODERN], "requested": version})

    def call(self, request, era):
        """`tools/call`."""
        eras, _, function = TOOLS.get(request.params.get("name"), ((), None, None))
        if era not in eras:
            raise Refused(-32602, "no such tool")
        try:
            result = function(request, request.params.get("arguments", {}))
        except (ValueError, KeyError) as error:
            return {"content": [text(str(error))], "isError": True}
        return {"content": result} if isinstance(result, list) else result

    def serve(self, request):
        """Answers a request."""
        try:
            result = self.answer(request)
        except Refused as refused:
            put({"id": request.ident, "error": refused.error})
            return
        if result is None:
            return
        if request.modern and request.method != "initialize":
            result = {"resultType": "complete", **result, "_meta": {"io.modelcontextprotocol/serverInfo": INFO}}
        put({"id": request.ident, "result": result})

    def take(self, message):
        """One message of the client."""
        method, ident, params = message.get("method"), message.get("id"), message.get("params") or {}
        if method is None:
            if answer := self.asked.get(ident):
                answer.put(message)
        elif ident is not None:
            request = Request(self, ident, method, params)
            if method == "tools/call":
                threading.Thread(target=self.serve, args=[request], daemon=True).start()
            else:
                # Handshakes and levels decide about what comes behind them.
                self.serve(request)
        elif method == "notifications/cancelled":
            with self.lock:
                self.listening.pop(params.get("requestId"), None)


server = Server()
for incoming in sys.stdin:
    server.take(json.loads(incoming))
