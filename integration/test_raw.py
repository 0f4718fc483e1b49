"""Real servers through a client that speaks raw lines: each answer in a cell is, byte for byte, the bare server's.

Neighbours: `test_sdk` and `test_inspector` say the same of clients that others wrote.
Never: compares what lives in a server's memory from call to call (session resources and simulated logging of
`everything`, the memo of `sqlite`) or depends on the moment or the host (its environment, the present time):
with a process for each call those differ by design.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time

import case
import fixtures
import host
import wire


def asks(peer, requests):
    """Sends each (method, params) and waits for its answer: the lines."""
    lines = []
    for (method, params), number in zip(requests, peer.numbers):
        lines.append((f"{number} {method}", peer.request(number, method, params)))
    return lines


def calls(peer, *tools):
    """Calls each (tool, arguments) in turn: the lines."""
    return asks(peer, [("tools/call", {"name": name, "arguments": arguments}) for name, arguments in tools])


LISTS = [("tools/list", {}), ("prompts/list", {}), ("resources/list", {}), ("resources/templates/list", {})]


# What does not fit the server's own schemas reaches the server, so that its errors can be compared.
UNCHECKED = ("--no-validate",)


class Everything(case.Case):
    """npm server-everything."""

    def same(self, script, answers=None, options=()):
        """Compares."""
        self.assert_same(fixtures.everything, script, answers, options)

    def test_handshake_and_lists(self):
        def script(peer):
            return [("initialize", case.offered(peer, peer.open())), *asks(peer, [*LISTS, ("tools/list", {})]),
                    # Toolcell answers for itself here: the same answer, in its own words.
                    ("ping", peer.result("ping", "ping"))]
        self.same(script)

    def test_each_revision_of_the_legacy_era(self):
        def script(version):
            def run(peer):
                return [(version, case.offered(peer, peer.open(version=version))), *asks(peer, [("tools/list", {})]),
                        *calls(peer, ("echo", {"message": "hello"}))]
            return run
        for version in ("2024-11-05", "2025-03-26", "2025-06-18"):
            self.same(script(version))

    def test_calls(self):
        def script(peer):
            peer.open()
            return calls(
                peer,
                ("echo", {"message": "héllo \u2028 \U0001f600 \"quoted\"\n\t\u0001"}),
                ("get-sum", {"a": 1.5, "b": 1e21}),
                ("get-tiny-image", {}),
                ("get-annotated-message", {"messageType": "error", "includeImage": True}),
                ("get-structured-content", {"location": "Chicago"}),
                ("get-resource-links", {"count": 2}),
            )
        self.same(script)

    def test_errors(self):
        def script(peer):
            peer.open()
            return [*calls(peer, ("get-sum", {"a": "one"}), ("no-such-tool", {})),
                    *asks(peer, [("no/such/method", {}), ("prompts/get", {"name": "nobody"}),
                                 ("resources/read", {"uri": "demo://nowhere"})])]
        self.same(script, options=UNCHECKED)

    def test_arguments_that_do_not_fit_never_reach_the_server(self):
        with self.open_celled(fixtures.everything()) as peer:
            peer.open()
            for tool, arguments, why in (("get-sum", {"a": "one", "b": 2}, "`/a` must be a number, not a string"),
                                         ("get-sum", {"a": 1}, "must have the member `b`"),
                                         ("get-smu", {}, "did you mean `get-sum`?")):
                line = peer.call(f"{tool} {why}", tool, arguments)
                self.assertTrue(case.is_error(line), line)
                self.assertIn(why, case.text_of(line))
        ran = [each for each in self.records() if each["event"] == "finished" and each["receipt"]]
        self.assertEqual({each["call"]["method"] for each in ran}, {"catalogue"})

    def test_prompts_resources_completion(self):
        def script(peer):
            peer.open()
            return asks(peer, [
                ("prompts/get", {"name": "simple-prompt"}),
                ("prompts/get", {"name": "args-prompt", "arguments": {"city": "Paris", "state": "Texas"}}),
                ("resources/read", {"uri": "demo://resource/static/document/architecture.md"}),
                ("completion/complete", {"ref": {"type": "ref/prompt", "name": "completable-prompt"},
                                         "argument": {"name": "department", "value": "E"}}),
                ("completion/complete", {"ref": {"type": "ref/resource",
                                                 "uri": "demo://resource/dynamic/text/{resourceId}"},
                                         "argument": {"name": "resourceId", "value": "1"}}),
            ])
        self.same(script)

    def test_identifiers_and_odd_lines(self):
        def script(peer):
            peer.open()
            for ident in (7, "seven", "7", -1, 2**53 - 1):
                yield ident, peer.call(ident, "echo", {"message": "x"})
            peer.send_raw(b'  { "method" :"tools/call","id": "spaced","params":{"arguments":{"message":"y"},'
                          b'"name":"echo","unknown":1.0},"jsonrpc":"2.0"}  \r\n')
            yield "spaced", peer.answer("spaced")
        self.same(lambda peer: list(script(peer)))

    def test_progress(self):
        def script(peer):
            peer.open()
            line = peer.call("p", "trigger-long-running-operation", {"duration": 0.6, "steps": 3},
                             _meta={"progressToken": "token"})
            last = peer.lines.index(line)
            news = peer.notifications("notifications/progress")
            return [("answer", line), ("progress", news), ("count", len(news)),
                    ("before the answer", all(peer.lines.index(each) < last for each in news))]
        self.same(script)

    def test_progress_comes_as_it_happens(self):
        with self.open_celled(fixtures.everything()) as peer:
            peer.open()
            line = peer.call("p", "trigger-long-running-operation", {"duration": 1.5, "steps": 3},
                             _meta={"progressToken": 5})
            first = peer.lines.index(peer.notifications("notifications/progress", 5)[0])
            self.assertGreater(peer.arrivals[peer.lines.index(line)] - peer.arrivals[first], 0.8)

    def test_parallel_calls(self):
        def script(peer):
            peer.open()
            for number in range(4):
                peer.post(f"slow-{number}", "tools/call", {
                    "name": "trigger-long-running-operation", "arguments": {"duration": 0.5, "steps": 2},
                    "_meta": {"progressToken": number}})
                peer.post(f"quick-{number}", "tools/call", {"name": "echo", "arguments": {"message": str(number)}})
            names = [f"{kind}-{number}" for number in range(4) for kind in ("slow", "quick")]
            return [*((name, peer.answer(name)) for name in names),
                    *((f"progress {number}", peer.notifications("notifications/progress", number))
                      for number in range(4))]
        self.same(script)

    def test_cancellation(self):
        def script(peer):
            peer.open()
            for name in ("other", "gone"):
                peer.post(name, "tools/call", {
                    "name": "trigger-long-running-operation", "arguments": {"duration": 1.2, "steps": 4},
                    "_meta": {"progressToken": name}})
                peer.wait_for(lambda m, name=name: m.get("params", {}).get("progressToken") == name, what="progress")
            peer.notify("notifications/cancelled", {"requestId": "gone", "reason": "no longer wanted"})
            other = peer.answer("other")
            echo = peer.call("after", "echo", {"message": "still here"})
            answered = [line for line in peer.lines if json.loads(line).get("id") == "gone"]
            return [("other", other), ("after", echo), ("answers to the cancelled call", answered)]
        self.same(script)

    def test_questions_of_the_server(self):
        # Each process of the server numbers its own questions from 0: the numbers that reach the client are not its.
        sampled = {"role": "assistant", "content": {"type": "text", "text": "sampled"}, "model": "m",
                   "stopReason": "endTurn"}
        answers = {"sampling/createMessage": lambda _: sampled,
                   "elicitation/create": lambda _: {"action": "decline"},
                   "roots/list": lambda _: {"roots": [{"uri": "file:///srv/a", "name": "a"}]}}

        def script(peer):
            peer.open({"sampling": {}, "elicitation": {}, "roots": {"listChanged": True}})
            lines = calls(peer, ("trigger-sampling-request", {"prompt": "p", "maxTokens": 5}),
                          ("trigger-elicitation-request", {}), ("get-roots-list", {}))
            peer.post("x", "tools/call", {"name": "trigger-sampling-request", "arguments": {"prompt": "x"}})
            peer.post("y", "tools/call", {"name": "trigger-sampling-request", "arguments": {"prompt": "y"}})
            lines += [("x", peer.answer("x")), ("y", peer.answer("y"))]
            asked = sorted(json.dumps(request.get("params"), sort_keys=True) for request in peer.requests
                           if request["method"] != "roots/list")
            numbers = [request["id"] for request in peer.requests]
            return [*lines, ("questions", asked), ("numbers differ", len(numbers) == len(set(numbers)))]
        self.same(script, answers)

    def test_log_level_is_remembered(self):
        def script(peer):
            peer.open()
            return asks(peer, [("logging/setLevel", {"level": "warning"})]) + calls(peer, ("echo", {"message": "x"}))
        self.same(script)


class Filesystem(case.Case):
    """npm server-filesystem."""

    def world(self):
        """A directory with something in it."""
        top = self.directory("files")
        (top / "sub").mkdir()
        (top / "hello.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
        (top / "sub" / "pixel.png").write_bytes(bytes(range(256)))
        (top / "sub" / "ünïcode 😀.txt").write_text("x", encoding="utf-8")
        for path in (*top.rglob("*"), top):
            os.utime(path, (1_700_000_000, 1_700_000_000))
        return top

    def test_reading(self):
        top = self.work / "files"

        def script(peer):
            return [("initialize", case.offered(peer, peer.open())), ("tools", peer.request("t", "tools/list", {})), *calls(
                peer,
                ("list_allowed_directories", {}),
                ("list_directory", {"path": str(top)}),
                ("directory_tree", {"path": str(top)}),
                ("read_text_file", {"path": f"{top}/hello.txt", "head": 2}),
                ("read_media_file", {"path": f"{top}/sub/pixel.png"}),
                ("read_multiple_files", {"paths": [f"{top}/hello.txt", f"{top}/missing"]}),
                ("search_files", {"path": str(top), "pattern": "**/*.txt"}),
                ("list_directory_with_sizes", {"path": str(top), "sortBy": "size"}),
            )]
        self.assert_same(lambda: fixtures.filesystem(self.world(), access="read"), script)

    def test_writing(self):
        top = self.work / "files"

        def script(peer):
            peer.open()
            lines = calls(
                peer,
                ("create_directory", {"path": f"{top}/new/deep"}),
                ("write_file", {"path": f"{top}/new/deep/a.txt", "content": "alpha\n"}),
                ("edit_file", {"path": f"{top}/new/deep/a.txt", "edits": [{"oldText": "alpha", "newText": "beta"}]}),
                ("move_file", {"source": f"{top}/new/deep/a.txt", "destination": f"{top}/sub/b.txt"}),
                ("read_text_file", {"path": f"{top}/sub/b.txt"}),
            )
            # What a cell writes belongs on the host to the user who granted the directory.
            made = (top / "sub" / "b.txt").stat()
            return [*lines, ("on disk", (top / "sub" / "b.txt").read_bytes()),
                    ("owner", (made.st_uid, made.st_gid)), ("mode", made.st_mode)]
        self.assert_same(lambda: fixtures.filesystem(self.world()), script)

    def test_refusals(self):
        top = self.work / "files"

        def script(peer):
            peer.open()
            return calls(peer, ("read_text_file", {"path": "/etc/passwd"}),
                         ("read_text_file", {"path": f"{top}/missing"}),
                         ("write_file", {"path": f"{top}/../outside.txt", "content": "x"}), ("read_text_file", {}))
        self.assert_same(lambda: fixtures.filesystem(self.world()), script, options=UNCHECKED)

    def test_roots_of_the_client(self):
        top = self.work / "files"
        answers = {"roots/list": lambda _: {"roots": [{"uri": f"file://{top}/sub"}]}}

        def script(peer):
            peer.open({"roots": {"listChanged": True}})
            if peer.bare:
                # It asks after the handshake, and a call that overtakes its question sees the old directories.
                # In cells it is toolcell that waits.
                host.until(lambda: "Updated allowed directories" in peer.stderr, 10)
            return calls(peer, ("list_allowed_directories", {}), ("read_text_file", {"path": f"{top}/hello.txt"}))
        self.assert_same(lambda: fixtures.filesystem(self.world()), script, answers)

    def test_directory_below_tmp(self):
        top = tempfile.mkdtemp(prefix="outside-", dir="/tmp")
        self.addCleanup(shutil.rmtree, top)
        with open(f"{top}/a", "w", encoding="utf-8") as file:
            file.write("below tmp")

        def script(peer):
            peer.open()
            return calls(peer, ("read_text_file", {"path": f"{top}/a"}), ("list_directory", {"path": top}))
        self.assert_same(lambda: fixtures.filesystem(top, access="read"), script)


class Memory(case.Case):
    """npm server-memory: each call rewrites a file that the next one reads."""

    def test_graph(self):
        def script(peer):
            entity = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
            return [("initialize", case.offered(peer, peer.open())), ("lists", [line for _, line in asks(peer, LISTS)]), *calls(
                peer,
                ("create_entities", {"entities": [entity, {**entity, "name": "Bob"}]}),
                ("create_relations", {"relations": [{"from": "Ada", "to": "Bob", "relationType": "knows"}]}),
                ("add_observations", {"observations": [{"entityName": "Ada", "contents": ["likes engines"]}]}),
                ("search_nodes", {"query": "engines"}),
                ("delete_entities", {"entityNames": ["Bob"]}),
                ("read_graph", {}),
            ), ("resource", peer.request("r", "resources/read", {"uri": "memory://knowledge-graph"})),
                ("on disk", (self.work / "graph" / "graph.jsonl").read_bytes())]
        self.assert_same(lambda: fixtures.memory(self.directory("graph")), script)


class Git(case.Case):
    """PyPI mcp-server-git: many children, and a repository that git must accept as its own."""

    def world(self):
        """A repository with a commit, a change in the index and one outside it."""
        top = self.directory("repo")
        env = {"PATH": fixtures.search_path(), "HOME": str(self.work), "GIT_CONFIG_NOSYSTEM": "1", **fixtures.GIT}
        for words in (["init", "-q", "-b", "main"], ["config", "user.name", "A"],
                      ["config", "user.email", "a@example.org"], ["config", "gc.auto", "0"]):
            subprocess.run(["git", *words], cwd=top, env=env, check=True)
        (top / "a.txt").write_text("one\n", encoding="utf-8")
        subprocess.run(["git", "add", "a.txt"], cwd=top, env=env, check=True)
        subprocess.run(["git", "commit", "-q", "-m", "first"], cwd=top, env=env, check=True)
        (top / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
        (top / "b.txt").write_text("new\n", encoding="utf-8")
        return top

    def test_legacy(self):
        top = str(self.work / "repo")

        def script(peer):
            return [("initialize", case.offered(peer, peer.open())), ("tools", peer.request("t", "tools/list", {})), *calls(
                peer,
                ("git_status", {"repo_path": top}),
                ("git_diff_unstaged", {"repo_path": top}),
                ("git_add", {"repo_path": top, "files": ["a.txt", "b.txt"]}),
                ("git_commit", {"repo_path": top, "message": "second"}),
                ("git_log", {"repo_path": top}),
                ("git_show", {"repo_path": top, "revision": "HEAD"}),
                ("git_show", {"repo_path": top, "revision": "no-such-revision"}),
                ("git_status", {"repo_path": "/etc"}),
            )]
        self.assert_same(lambda: fixtures.git(self.world()), script)

    def test_modern(self):
        top = str(self.work / "repo")

        def script(peer):
            modern = wire.modern
            return asks(peer, [
                ("server/discover", modern()), ("tools/list", modern()), ("prompts/list", modern()),
                ("tools/call", modern({"name": "git_status", "arguments": {"repo_path": top}})),
                ("tools/call", modern({"name": "git_create_branch",
                                       "arguments": {"repo_path": top, "branch_name": "topic"}})),
                ("tools/call", modern({"name": "git_branch", "arguments": {"repo_path": top, "branch_type": "local"}})),
            ])
        self.assert_same(lambda: fixtures.git(self.world()), script)


class Time(case.Case):
    """PyPI mcp-server-time: dual era."""

    CONVERT = fixtures.convert()

    def test_legacy(self):
        def script(peer):
            return [("initialize", case.offered(peer, peer.open())), ("tools", peer.request("t", "tools/list", {})), *calls(
                peer, ("convert_time", self.CONVERT), ("convert_time", {**self.CONVERT, "time": "25:99"}),
                ("get_current_time", {"timezone": "Nowhere/At_All"}))]
        self.assert_same(fixtures.clock, script)

    def test_modern(self):
        def script(peer):
            modern = wire.modern
            return asks(peer, [("server/discover", modern()), ("tools/list", modern()),
                               ("tools/call", modern({"name": "convert_time", "arguments": self.CONVERT})),
                               ("tools/call", modern({"name": "convert_time", "arguments": {}})),
                               ("tools/list", modern(version="1999-01-01")), ("no/such/method", modern())])
        self.assert_same(fixtures.clock, script, options=UNCHECKED)

    def test_no_handshake_means_the_same_error(self):
        def script(peer):
            return asks(peer, [("tools/list", {})])
        self.assert_same(fixtures.clock, script)


class Fetch(case.Case):
    """PyPI mcp-server-fetch: wants the network, and npm if it sees it."""

    def test_lists(self):
        def script(peer):
            return [("initialize", case.offered(peer, peer.open())), *asks(peer, LISTS)]
        self.assert_same(fixtures.fetch, script)

    def test_call_without_network_ends_with_its_own_error(self):
        with self.open_celled(fixtures.fetch()) as peer:
            peer.open()
            # A name, and a public address: others the server refuses by itself.
            for number, name in enumerate(("example.org", "1.1.1.1")):
                start = time.monotonic()
                line = peer.call(f"fetch {number}", "fetch", {"url": f"http://{name}/page"}, timeout=30)
                self.assertTrue(case.is_error(line), line)
                self.assertIn(name, case.text_of(line))
                # Seeing npm it would try to install a package for more than a minute.
                self.assertLess(time.monotonic() - start, 10)


class Sqlite(case.Case):
    """PyPI mcp-server-sqlite on a 1.x SDK."""

    def test_tables(self):
        def script(peer):
            return [("initialize", case.offered(peer, peer.open())), ("lists", [line for _, line in asks(peer, LISTS)]), *calls(
                peer,
                ("create_table", {"query": "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)"}),
                ("write_query", {"query": "INSERT INTO t (name) VALUES ('ada'), ('bob')"}),
                ("read_query", {"query": "SELECT * FROM t ORDER BY id"}),
                ("list_tables", {}),
                ("describe_table", {"table_name": "t"}),
                ("read_query", {"query": "SELECT nonsense FROM nowhere"}),
            ), ("prompt", peer.request("p", "prompts/get", {"name": "mcp-demo", "arguments": {"topic": "ducks"}}))]
        self.assert_same(lambda: fixtures.sqlite(self.directory("db")), script)


class Tiny(case.Case):
    """Our own server: what no public one does."""

    def test_bytes_of_an_answer(self):
        def script(peer):
            peer.open()
            return [*calls(peer, ("echo", {"text": "é\u2028😀"}), ("fail", {}), ("spew", {"size": 300_000})),
                    *asks(peer, [("tools/list", {})])]
        self.assert_same(fixtures.tiny, script)

    def test_large_answer(self):
        def script(peer):
            peer.open()
            return calls(peer, ("spew", {"size": 9_000_000}))
        self.assert_same(fixtures.tiny, script)

    def test_large_request(self):
        text = base64.b64encode(os.urandom(1_500_000)).decode()

        def script(peer):
            peer.open()
            return calls(peer, ("echo", {"text": text}))
        self.assert_same(fixtures.tiny, script)

    def test_news_of_a_call(self):
        def script(peer):
            peer.open()
            line = peer.call("n", "news", {"count": 50}, _meta={"progressToken": "t"})
            return [("answer", line), ("news", peer.notifications()), ("all", peer.lines)]
        self.assert_same(fixtures.tiny, script)

    def test_pages_whose_cursor_is_good_for_one_process(self):
        def walk(params):
            def script(peer):
                if not params:
                    peer.open()
                cursor, names = {}, []
                for number in range(10):
                    line = peer.result(f"page {number}", "prompts/list", {**cursor, **params})
                    names += [prompt["name"] for prompt in line["result"]["prompts"]]
                    if "nextCursor" not in line["result"]:
                        break
                    cursor = {"cursor": line["result"]["nextCursor"]}
                return [("names", names)]
            return script
        self.assert_same(fixtures.tiny, walk({}))
        self.assert_same(lambda: fixtures.tiny("--modern"), walk(wire.modern()))

    def test_question_of_a_modern_server(self):
        def script(peer):
            meta = wire.modern()
            first = peer.result("a", "tools/call", {"name": "ask", "arguments": {}, **meta})["result"]
            second = peer.request("b", "tools/call", {
                "name": "ask", "arguments": {}, "requestState": first.pop("requestState"),
                "inputResponses": {"name": {"action": "accept", "content": {"name": "Ada"}}}, **meta})
            return [("question", first), ("answer", second)]
        self.assert_same(lambda: fixtures.tiny("--modern"), script)
