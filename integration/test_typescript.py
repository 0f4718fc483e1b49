"""The TypeScript SDK, 1.x and 2.x, as others use it: what its user gets from a cell is what the bare server gives.

Neighbours: `clients/sdk.mjs` runs with either SDK, `test_sdk` says the same of Python's. Never: looks at bytes.
"""

import concurrent.futures
import json
import subprocess

import case
import fixtures

MODERN = "2026-07-28"
CONVERT = ["call", "convert_time", fixtures.convert()]


def asked(name):
    """Calls a tool that asks the client something."""
    return ["call", f"test_input_required_result_{name}", {}]


LEGACY_QUESTIONS = (
    ["level", "debug"], ["call", "test_sampling", {"prompt": "x"}], ["call", "test_elicitation", {"message": "x"}],
    ["call", "test_elicitation_sep1034_defaults", {}], ["progress", "test_tool_with_progress", {}],
    ["call", "test_tool_with_logging", {}], ["log"],
)
MODERN_QUESTIONS = (
    ["tools"], ["prompts"], ["resources"], ["templates"], asked("elicitation"), asked("sampling"), asked("list_roots"),
    asked("multiple_inputs"), asked("multi_round"), ["prompt", "test_input_required_result_prompt", {}],
    ["progress", "test_tool_with_progress", {}], ["resource", "test://static-text"], ["resource", "test://nowhere"],
    ["call", "test_error_handling", {}],
)


EVERYTHING = (
    ["tools"], ["prompts"], ["templates"], ["level", "info"],
    ["call", "echo", {"message": "héllo 😀"}],
    ["call", "get-structured-content", {"location": "Chicago"}],
    ["call", "get-sum", {"a": "one"}],
    ["call", "no-such-tool", {}],
    ["prompt", "args-prompt", {"city": "Paris"}],
    ["resource", "demo://resource/static/document/features.md"],
    ["resource", "demo://nowhere"],
    ["complete", "completable-prompt", "department", "E"],
    ["parallel", [["call", "echo", {"message": str(number)}] for number in range(4)]],
    ["abandon", "trigger-long-running-operation", {"duration": 20, "steps": 200}],
    ["call", "echo", {"message": "after"}],
)


class Compared(case.Case):
    """npm sdk 1.x and client 2.x."""

    def run_client(self, sdk, command, env, mode, steps, roots):
        """The decoded results of one run."""
        given = json.dumps({"sdk": sdk, "command": command, "env": env, "mode": mode, "steps": steps, "roots": roots})
        done = subprocess.run(
            [str(fixtures.PINNED_NODE), str(fixtures.HERE / "clients" / "sdk.mjs"), str(fixtures.TYPESCRIPT), given],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False, env=self.base, cwd="/")
        self.assertEqual(done.returncode, 0, f"the client failed:\n{done.stderr[-4000:]}")
        return json.loads(done.stdout)

    def same(self, sdk, mode, server, *steps, options=(), roots=False):
        """Compares; gives the bare server's results. The servers used here share no state, so both run at once."""
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(self.run_client, sdk, server.bare(), {**self.base, **server.env}, mode, steps, roots),
                    pool.submit(self.run_client, sdk, self.wrapped(server, *options), self.base, mode, steps, roots)]
            bare, celled = [run.result() for run in runs]
        bare[0][1]["capabilities"].pop("tasks", None)
        self.assert_all_equal(bare, celled)
        return bare


class TypeScript(Compared):
    """Either SDK in its own era."""

    only = case.once()

    def test_sdk1_everything(self):
        # What does not fit the server's own schemas reaches the server, so that its errors can be compared.
        self.same(1, "legacy", fixtures.everything(), *EVERYTHING, options=("--no-validate",), roots=True)

    def test_sdk2_modern_questions(self):
        self.same(2, MODERN, fixtures.conformance(), *MODERN_QUESTIONS, roots=True)


class MoreTypeScript(Compared):
    """The other ways to come to an era."""

    only = case.long()

    def test_sdk2_falls_back_to_a_legacy_server(self):
        opened = self.same(2, "auto", fixtures.everything(), *EVERYTHING, options=("--no-validate",))[0][1]
        self.assertEqual(opened["era"], "legacy")

    def test_sdk2_finds_the_modern_era(self):
        opened = self.same(2, "auto", fixtures.clock(), ["tools"], CONVERT, ["call", "no-such-tool", {}],
                           options=("--no-validate",))[0][1]
        self.assertEqual(opened["era"], "modern")

    def test_sdk2_legacy_questions(self):
        self.same(2, "legacy", fixtures.conformance(), *LEGACY_QUESTIONS)

    def test_sdk1_questions(self):
        self.same(1, "legacy", fixtures.conformance(), *LEGACY_QUESTIONS, roots=True)
