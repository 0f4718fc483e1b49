"""The Python SDK in both eras, as others use it: what its user gets from a cell is what the bare server gives.

Neighbours: `clients/sdk` runs inside each SDK's own environment. Never: looks at bytes; `test_raw` does.
"""

import json
import subprocess

import case
import fixtures

CONVERT = ["call", "convert_time", fixtures.convert()]
MODERN = "2026-07-28"


class Sdk(case.Case):
    """Python SDK 2.3 and 1.x."""

    def run_client(self, python, command, env, mode, steps):
        """The decoded results of one run."""
        given = json.dumps({"command": command, "env": env, "mode": mode, "steps": steps})
        done = subprocess.run([str(python), "-I", str(fixtures.HERE / "clients" / "sdk.py"), given],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
                              env=self.base, cwd="/")
        self.assertEqual(done.returncode, 0, f"the client failed:\n{done.stderr[-4000:]}")
        return json.loads(done.stdout)

    def same(self, python, mode, make, *steps, options=()):
        """Compares; gives the bare server's results."""
        server = make()
        bare = self.run_client(python, server.bare(), {**self.base, **server.env}, mode, steps)
        celled = self.run_client(python, self.wrapped(make(), *options), self.base, mode, steps)
        bare[0][1]["capabilities"].pop("tasks", None)
        self.assert_all_equal(bare, celled)
        return bare

    EVERYTHING = (
        ["tools"], ["prompts"], ["templates"],
        ["call", "echo", {"message": "héllo 😀"}],
        ["call", "get-structured-content", {"location": "Chicago"}],
        ["call", "get-sum", {"a": "one"}],
        ["call", "no-such-tool", {}],
        ["progress", "trigger-long-running-operation", {"duration": 0.4, "steps": 2}],
        ["prompt", "args-prompt", {"city": "Paris"}],
        ["resource", "demo://resource/static/document/features.md"],
        ["resource", "demo://nowhere"],
        ["complete", "completable-prompt", "department", "E"],
        ["parallel", [["call", "echo", {"message": str(number)}] for number in range(4)]],
        ["abandon", "trigger-long-running-operation", {"duration": 20, "steps": 2}, 1],
        ["call", "echo", {"message": "after"}],
    )

    def test_sdk1_everything(self):
        # What does not fit the server's own schemas reaches the server, so that its errors can be compared.
        self.same(fixtures.SDK1, "legacy", fixtures.everything, *self.EVERYTHING, options=("--no-validate",))

    def test_sdk2_legacy_everything(self):
        self.same(fixtures.SDK2, "legacy", fixtures.everything, *self.EVERYTHING[-7:])

    def test_sdk2_falls_back_to_a_legacy_server(self):
        opened = self.same(fixtures.SDK2, "auto", fixtures.everything, ["call", "echo", {"message": "x"}])[0][1]
        self.assertNotEqual(opened["version"], MODERN)

    def test_sdk2_falls_back_to_a_server_of_sdk1(self):
        opened = self.same(fixtures.SDK2, "auto", lambda: fixtures.sqlite(self.directory("db")), ["tools"],
                           ["call", "create_table", {"query": "CREATE TABLE t (a)"}], ["call", "list_tables", {}])[0][1]
        self.assertNotEqual(opened["version"], MODERN)

    def test_sdk2_finds_the_modern_era(self):
        opened = self.same(fixtures.SDK2, "auto", fixtures.clock, ["tools"], CONVERT,
                           ["call", "convert_time", {}], ["call", "no-such-tool", {}], ["prompts"],
                           options=("--no-validate",))[0][1]
        self.assertEqual(opened["version"], MODERN)

    def test_sdk2_modern_without_a_probe(self):
        self.same(fixtures.SDK2, MODERN, fixtures.clock, CONVERT, ["parallel", [CONVERT] * 3])

    def test_sdk1_with_a_dual_server(self):
        self.same(fixtures.SDK1, "legacy", fixtures.clock, ["tools"], CONVERT)

    def test_sdk2_legacy_with_a_dual_server(self):
        self.same(fixtures.SDK2, "legacy", fixtures.clock, ["tools"], CONVERT)

    def test_sdk2_modern_filesystem_through_fallback(self):
        def world():
            top = self.directory("files")
            # What stands in for names in the granted directory itself shows in its listing.
            (top / "sub").mkdir()
            (top / "sub" / "a").write_text("alpha", encoding="utf-8")
            return fixtures.filesystem(top)
        top = str(self.work / "files" / "sub")
        self.same(fixtures.SDK2, "auto", world, ["call", "write_file", {"path": f"{top}/b", "content": "beta"}],
                  ["call", "list_directory", {"path": top}], ["call", "read_text_file", {"path": f"{top}/b"}])

    def test_sdk2_modern_progress_and_log(self):
        self.same(fixtures.SDK2, MODERN, lambda: fixtures.tiny("--modern"), ["tools"],
                  ["progress", "news", {"count": 5}], ["log"], ["call", "fail", {}])

    def test_sdk1_log(self):
        self.same(fixtures.SDK1, "legacy", fixtures.tiny, ["level", "info"], ["progress", "news", {"count": 5}],
                  ["log"])
