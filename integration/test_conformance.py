"""The official conformance suite: what it says of a server is what it says of the same server in cells.

Neighbours: `conformance` runs the suite, `servers/conformance` is the server. `scripts/conformance` runs all of this and
prints every verdict. Never: excuses a verdict without a reason that stands here.
"""

import concurrent.futures
import os

import case
import conformance
import fixtures
import serving

LEGACY, MODERN = "2025-11-25", "2026-07-28"
# Scenarios that the suite runs for show and does not score: a server on stdio cannot close the stream of an HTTP request,
# and this one has no tasks.
NOT_COMPARED = ("server-sse-polling", "tasks-")
# Where each call has a process of its own, whoever watches a list is in another one than the call that changes it.
NOT_SEEN = {
    ("server-stateless", "sep-2575-server-sends-prompts-list-changed-on-subscription"): "WARNING",
    ("server-stateless", "sep-2575-server-sends-tools-list-changed-on-subscription"): "WARNING",
}


class Conformance(case.Case):
    """@modelcontextprotocol/conformance."""

    only = case.once()

    def run_all(self, revision):
        """The verdicts of the bare server, and of the same one in cells: one a call, one a session, and served over HTTP.

        They share nothing, so they run at once.
        """
        server = fixtures.conformance()
        commands = [(conformance.bridged, server.bare()), (conformance.bridged, self.wrapped(server)),
                    (conformance.bridged, self.wrapped(server, "--state=session")),
                    (serving.served, self.wrapped(server, "--state=session"))]

        def run(behind, command):
            with behind(command, self.base) as address:
                return conformance.verdicts(address, self.base, revision)
        with concurrent.futures.ThreadPoolExecutor(len(commands)) as pool:
            return [each.result() for each in [pool.submit(run, *command) for command in commands]]

    def compare(self, revision):
        """Compares, and looks that the bare server passes."""
        bare, *celled = self.run_all(revision)
        modes = dict(zip(("call", "session", "serve"), zip(celled, (NOT_SEEN, {}, {}))))
        scored = conformance.scored(revision)
        if os.environ.get("OUTSIDE_LONG"):
            print(f"{revision}  {'':50}{'bare':10}" + "".join(f"{mode:10}" for mode in modes), flush=True)
            for name in sorted(bare, key=lambda name: (name not in scored, name)):
                verdicts = "".join(f"{conformance.status(found.get(name, [])):10}" for found in (bare, *celled))
                print(f"{revision}  {name:50}{verdicts}{'' if name in scored else 'not scored'}", flush=True)
        for mode, (found, allowed) in modes.items():
            different, missing = [], {key for key in allowed if key[0] in bare}
            for scenario, check, name, left, right, message in conformance.differences(bare, found):
                if right == allowed.get((scenario, check)):
                    missing.discard((scenario, check))
                elif not scenario.startswith(NOT_COMPARED):
                    different.append(f"{scenario}: {check} ({name}): bare {left}, {mode} {right}: {message}")
            self.assertEqual([], different)
            self.assertEqual(set(), missing, f"{mode}: not different after all")
        self.assertEqual([], [name for name in scored if name not in bare], "the suite did not run everything")
        failed = [f"{name}: {check[0]} ({check[1]}): {check[2]}: {check[3]}" for name, checks in bare.items()
                  for check in checks if check[2] in ("FAILURE", "WARNING") and not name.startswith(NOT_COMPARED)]
        self.assertEqual([], failed, "the bare server does not pass")

    def test_2025_11_25(self):
        self.compare(LEGACY)

    def test_2026_07_28(self):
        self.compare(MODERN)
