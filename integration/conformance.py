"""The official conformance suite against an address behind which a server is: the verdicts are collected.

Neighbours: `bridge` gives a command on stdio an address, `serving` has `toolcell serve`; `test_conformance` compares
the verdicts. Never: judges: which verdict is right is the suite's affair, and which difference is allowed the test's.
"""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import fixtures

SUITE = fixtures.FIXTURES / "node" / "conformance" / "node_modules" / "@modelcontextprotocol" / "conformance"
BRIDGE = fixtures.HERE / "bridge.py"


class Broken(Exception):
    """The suite did not run."""


@contextlib.contextmanager
def bridged(command, env):
    """The address of a bridge to a command on stdio."""
    bridge = subprocess.Popen([sys.executable, "-ISE", str(BRIDGE), "--", *map(str, command)], env=env, cwd="/",
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield bridge.stdout.readline().strip()
    finally:
        bridge.stdin.close()
        try:
            bridge.wait(20)
        finally:
            bridge.kill()
            bridge.wait()
            bridge.stdout.close()


def verdicts(address, env, revision):
    """Scenario → [(check, name, status, message)] of all scenarios of a requirement set."""
    with tempfile.TemporaryDirectory(dir=env["HOME"]) as out:
        suite = subprocess.run(
            [str(fixtures.PINNED_NODE), str(SUITE / "dist" / "index.js"), "server", "--url", address,
             "--requirements", revision, "--output-dir", out], env={**env, "NO_COLOR": "1"}, cwd=out,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240,
            check=False)
        found = collected(pathlib.Path(out))
    if not found or suite.returncode not in (0, 1):
        raise Broken(f"the suite ended with status {suite.returncode}:\n{suite.stdout[-4000:]}")
    return found


def collected(out):
    """The verdicts in the suite's own files: `server-SCENARIO-TIME/checks.json`."""
    found = {}
    for path in sorted(out.glob("server-*/checks.json")):
        name = re.sub(r"-\d{4}-\d\d-\d\dT[\d-]+Z$", "", path.parent.name.removeprefix("server-"))
        found[name] = [(each["id"], each["name"], each["status"], each.get("errorMessage", ""))
                       for each in json.loads(path.read_text(encoding="utf-8"))]
    return found


def scored(revision):
    """The scenarios that a revision demands; the suite runs others for show."""
    lines = (SUITE / "requirements" / f"{revision}.yaml").read_text(encoding="utf-8").splitlines()
    names, inside = [], False
    for line in lines:
        if line and not line.startswith((" ", "#")):
            inside = line == "server:"
        elif inside and line.startswith("  - "):
            names.append(line.removeprefix("  - ").split("#")[0].strip())
    return names


def status(checks):
    """A scenario's own verdict: the worst of its checks'."""
    rank = ("FAILURE", "WARNING", "SUCCESS", "SKIPPED", "INFO")
    return min((check[2] for check in checks), key=rank.index, default="nothing")


def differences(bare, celled):
    """What the two say differently: [(scenario, check, name, bare status, status in cells, message)]."""
    found = []
    for scenario in sorted(bare.keys() | celled.keys()):
        left, right = bare.get(scenario, []), celled.get(scenario, [])
        for number in range(max(len(left), len(right))):
            a = left[number] if number < len(left) else ("", "", "nothing", "")
            b = right[number] if number < len(right) else ("", "", "nothing", "")
            if a[:3] != b[:3]:
                found.append((scenario, a[0] or b[0], a[1] or b[1], a[2], b[2], b[3] or a[3]))
    return found
