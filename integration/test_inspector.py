"""The Inspector's command line: what it prints of a cell is what it prints of the bare server.

Neighbours: `test_raw`, `test_sdk`. Never: opens the Inspector's web part.
"""

import concurrent.futures
import json
import subprocess

import case
import fixtures

CONVERT = ["--method", "tools/call", "--tool-name", "convert_time", "--tool-args-json",
           json.dumps(fixtures.convert())]


class Inspector(case.Case):
    """npm inspector 2.12."""

    def inspect(self, command, env, *words):
        """Exit status, stdout and stderr of one run. Its own files go to its own home."""
        done = subprocess.run([*fixtures.INSPECTOR, *words, "--format", "json", "-q", "--", *command],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
                              env={**self.base, **env}, cwd="/")
        return done.returncode, done.stdout, done.stderr

    def same(self, make, *words, options=()):
        """Compares exit status and output; gives the decoded output."""
        server = make()
        # The servers used here share no state, and the Inspector waits two seconds for a server to leave.
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(self.inspect, server.bare(), server.env, *words),
                    pool.submit(self.inspect, self.wrapped(server, *options), {}, *words)]
            bare, celled = [run.result() for run in runs]
        self.assertEqual(bare[:2], celled[:2], f"stderr:\n{celled[2]}")
        return json.loads(bare[1] or "null")

    def test_legacy_lists(self):
        self.same(fixtures.everything, "--method", "tools/list")

    def test_legacy_calls(self):
        self.same(fixtures.everything, "--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hi")
        self.same(fixtures.everything, "--method", "tools/call", "--tool-name", "get-sum", "--tool-arg", "a=x",
                  options=("--no-validate",))
        self.same(fixtures.everything, "--method", "prompts/get", "--prompt-name", "args-prompt", "--prompt-args",
                  "city=Paris")

    def test_modern(self):
        self.same(fixtures.clock, "--protocol-era", "modern", *CONVERT)
        self.same(fixtures.clock, "--protocol-era", "auto", *CONVERT)

    def test_auto_falls_back(self):
        self.same(fixtures.everything, "--protocol-era", "auto", "--method", "tools/call", "--tool-name", "echo",
                  "--tool-arg", "message=hi")

    def test_load(self):
        status, out, err = self.inspect(
            self.wrapped(fixtures.tiny()), {}, "--load", "--load-requests", "60", "--load-concurrency", "6",
            "--method", "tools/call", "--tool-name", "echo", "--tool-arg", "text=x")
        self.assertEqual(status, 0, err)
        result = json.loads(out)["result"]
        self.assertEqual((result["ok"], result["errors"], result["toolErrors"]), (60, 0, 0), out)
