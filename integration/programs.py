"""Builds the tests once, and lays copies of what they need where another user, or a guest, can reach them.

Neighbours: `scripts/test` and `scripts/vm` run the copies. Never: changes a file of the project.
"""

import json
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILT = {}


class NotBuilt(Exception):
    """The tests do not compile."""


def build():
    """Builds all tests once; their programs by name."""
    if not BUILT:
        command = ["cargo", "test", "--no-run", "--message-format=json-render-diagnostics"]
        print("+", " ".join(command), flush=True)
        built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if built.returncode != 0:
            raise NotBuilt("the tests do not compile")
        for line in built.stdout.splitlines():
            message = json.loads(line)
            if message.get("executable") and message["reason"] == "compiler-artifact":
                kind = "test" if message["profile"]["test"] else "program"
                BUILT[message["target"]["name"], kind, message["target"]["kind"][0]] = message["executable"]
    return BUILT


def lay_out(scene):
    """Copies of `toolcell`, `unit`, `it` and `probe`, and `project/` with the files that tests compare with."""
    built = build()
    scene.chmod(0o755)
    for folder in ("src", "tests", "profiles", "docs", "fuzz/corpus"):
        shutil.copytree(ROOT / folder, scene / "project" / folder)
    shutil.copy(ROOT / "SECURITY.md", scene / "project")
    for path in (scene / "project").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (scene / "project").chmod(0o755)
    command = ["gcc", "-static", "-O1", "-o", scene / "probe", ROOT / "tests" / "it" / "cell" / "probe.c"]
    if subprocess.run(command, check=False).returncode != 0:
        raise NotBuilt("gcc cannot compile the probe")
    programs = {"toolcell": built["toolcell", "program", "bin"], "unit": built["toolcell", "test", "lib"],
                "it": built["it", "test", "test"]}
    for copy, program in programs.items():
        shutil.copy(program, scene / copy)
    for copy in (*programs, "probe"):
        (scene / copy).chmod(0o755)


def environment(scene):
    """What tells the copied tests where the other copies are."""
    return {"INSTA_WORKSPACE_ROOT": f"{scene}/project", "INSTA_UPDATE": "no",
            "TOOLCELL_TEST_PROJECT": f"{scene}/project",
            "TOOLCELL_TEST_BINARY": f"{scene}/toolcell", "TOOLCELL_TEST_PROBE": f"{scene}/probe"}
