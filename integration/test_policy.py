"""The worked configuration of docs/policy.md with PyPI's mcp-server-git, before three clients: reader, writer and CI.

Neighbours: `access::gate` tests the same table without a server. Never: knows the table by heart.
"""

import json
import pathlib
import re
import subprocess

import case
import fixtures
import wire

REFERENCE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "policy.md"


def worked():
    """The configuration, and for each row of its table its kind and name, and who may."""
    section = REFERENCE.read_text(encoding="utf-8").split("## A worked configuration\n")[1]
    text = section.split("```toml\n")[1].split("```")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    head, _, *rows = rows
    named = [re.fullmatch(r"(tool|prompt|resource) `(.*)`", row[0]).groups() for row in rows]
    return text, [(kind, name, dict(zip(head[1:], row[1:], strict=True))) for (kind, name), row in zip(named, rows, strict=True)]


class Worked(case.Case):
    """One session for each identity, of one configuration and one log."""

    def git(self, *words):
        """git without a cell."""
        env = {"PATH": fixtures.search_path(), "HOME": str(self.home), "GIT_CONFIG_NOSYSTEM": "1", **fixtures.GIT}
        return subprocess.run(["git", *words], cwd=self.top, env=env, check=True, capture_output=True, text=True).stdout

    def setUp(self):
        super().setUp()
        self.top = self.directory("project")
        for words in (["init", "-q", "-b", "main"], ["config", "user.name", "A"], ["config", "user.email", "a@example.org"],
                      ["config", "gc.auto", "0"]):
            self.git(*words)
        (self.top / "a.txt").write_text("one\n", encoding="utf-8")
        self.git("add", "a.txt")
        self.git("commit", "-q", "-m", "first")
        text, self.rows = worked()
        server = json.dumps(fixtures.git(self.top).command[0])
        self.assertEqual((text.count('"mcp-server-git"'), text.count('"/srv/project"')), (1, 1))
        text = text.replace('"mcp-server-git"', server).replace("/srv/project", str(self.top))
        self.place = self.directory("policy")
        self.config = self.place / "servers.toml"
        self.config.write_text(text, encoding="utf-8")
        self.env = {**self.base, "XDG_STATE_HOME": str(self.place)}

    def client(self, identity):
        """A client of its own, with the token of its identity."""
        token = subprocess.run([case.TOOLCELL, "token", "new", identity, f"--config={self.config}"], capture_output=True,
                               text=True, check=True, env=self.env).stdout.strip()
        floor = [] if self.full else ["--floor=no-cgroup"]
        command = [case.TOOLCELL, "run", *floor, f"--audit={self.audit}", f"--config={self.config}", "git"]
        return wire.Wire(command, {**self.env, "TOOLCELL_TOKEN": token}, cwd=self.top)

    def ask(self, peer, ident, kind, name):
        """A request of a row; the line that answers it."""
        name = name.replace("/srv/project", str(self.top))
        arguments = {"repo_path": str(self.top)}
        arguments.update({"git_add": {"files": ["a.txt"]}, "git_commit": {"message": f"by {ident}"}, "git_show": {"revision": "HEAD"},
                          "git_create_branch": {"branch_name": f"of-{ident.split('-')[0]}"}}.get(name, {}))
        if kind == "tool":
            return peer.call(ident, name, arguments)
        method, member = {"prompt": ("prompts/get", "name"), "resource": ("resources/read", "uri")}[kind]
        return peer.request(ident, method, {member: name})

    def refusals(self):
        """How many requests were refused by roles."""
        found = [record for record in self.records() if record["event"] == "finished"]
        return sum(violation["layer"] == "access" for record in found for violation in record["violations"])

    def test_three_identities(self):
        identities = list(self.rows[0][2])
        self.assertEqual(identities, ["reader", "writer", "ci"])
        for identity in identities:
            with self.client(identity) as peer:
                peer.open()
                tools = {tool["name"] for tool in peer.result("tools", "tools/list")["result"]["tools"]}
                for number, (kind, name, may) in enumerate(self.rows):
                    with self.subTest(identity=identity, kind=kind, name=name):
                        if name == "git_add":
                            (self.top / "a.txt").write_text(f"one\n{identity}\n", encoding="utf-8")
                        ident = f"{identity}-{number}"
                        before = self.refusals()
                        line = self.ask(peer, ident, kind, name)
                        self.assertEqual(self.refusals() - before, int(may[identity] == "no"), line)
                        if name in tools:
                            self.assertEqual(may[identity], "yes", "a list shows what may not be called")
                            self.assertFalse(case.is_error(line), line)
        # What was allowed was done, and nothing else was.
        self.assertEqual(self.git("log", "--format=%s").split("\n")[0].split("-")[0], "by writer")
        self.assertEqual(self.git("rev-list", "--count", "HEAD").strip(), "2")
        self.assertEqual(self.git("branch", "--format=%(refname:short)").split(), ["main", "of-ci", "of-writer"])
        started = [record for record in self.records() if record["event"] == "started"]
        self.assertEqual({record["call"]["identity"] for record in started if record["call"]["method"] == "tools/call"},
                         set(identities))
