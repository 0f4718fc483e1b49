"""SIGKILL to supervisor, launcher and init of `run`, in each step of a launch: nothing is left, the next call works, and the
log says what there was.

Neighbours: `stepper` stops and kills; `test_life` kills while a call runs. `it::cell::failures` has steps of other plans.
Never: leaves out a step of the plan that is not found; such a one is a failure.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

import case
import fixtures
import host
import stepper
import wire

# Without a namespace to be had: below a user namespace that allows none, or without the capability for them.
BELOW = ('echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps=-all --inh-caps=-all "$@"')
# Steps of the launcher: the call that makes them, and how often it is made.
LAUNCHERS = {"create-cgroup": "mkdir", "reserve-name": "flock", "listen-outside": "listen",
             "make-private-directory": "mkdir", "clone": "clone"}


def parts(plan):
    """The launcher's part of a plan and init's, as `stepper` walks through them."""
    launcher, init = [], []
    steps = [(step, {}) if isinstance(step, str) else next(iter(step.items())) for step in plan["steps"]]
    cloned = False
    for name, about in steps:
        if not cloned or name == "create-cgroup":
            often = {"create-cgroup": len(about.get("directories", ())), "make-private-directory": 2}.get(name, 1)
            launcher.append([name, LAUNCHERS[name], often, []])
        if cloned:
            call, often, *others = stepper.STEPS[name]
            if name == "join-cgroup" and not about["namespace"]:
                call = "openat"
            init.append([name, call, often, others])
        cloned = cloned or name == "clone"
    return launcher, init


class Kills(case.Case):
    """A configuration, its plan, and one session a step."""

    # What the profile grants beside the directory, and steps that only such a plan has; all are tried where none is named.
    files = 'write = ["{data}"]\ndeny = ["{data}/denied"]\n'
    network = ""
    steps = ()

    def setUp(self):
        super().setUp()
        # Without namespaces root's payload is nobody in particular.
        self.work.chmod(0o755)
        self.launchers = []
        self.data = self.directory("data")
        self.runtime = self.directory("runtime")
        self.runtime.chmod(0o700)
        self.base["XDG_RUNTIME_DIR"] = str(self.runtime)
        command = json.dumps(fixtures.tiny().command)
        self.config = self.directory("configuration") / "servers.toml"
        self.config.write_text(f'[servers.tiny]\ncommand = {command}\nvalidate = "off"\n', encoding="utf-8")
        self.profile = self.config.with_name("kills.toml")
        self.options = [f"--audit={self.audit}", f"--config={self.config}", f"--profile={self.profile}", "--spares=0"]
        self.write_profile("full" if self.full else "no-cgroup")

    def around(self):
        """What toolcell is started by."""
        return []

    def write_profile(self, floor):
        """The profile, with what only tests know filled in."""
        text = f'extends = "default"\nfloor = "{floor}"\n[filesystem]\n{self.files}[network]\n{self.network}'
        for name in ("data", "runtime"):
            text = text.replace("{" + name + "}", str(getattr(self, name)))
        self.profile.write_text(text, encoding="utf-8")

    def plan(self):
        """What is going to be run."""
        explained = subprocess.run(
            [*self.around(), case.TOOLCELL, "profile", "explain", "--json", self.profile, "--", *fixtures.tiny().command],
            env=self.base, capture_output=True, text=True, check=False)
        self.need(explained.returncode != case.REFUSED, f"this host gives no such cell: {explained.stderr}")
        self.assertEqual(explained.returncode, 0, explained.stderr)
        return json.loads(explained.stdout)

    def call(self, peer, ident, text):
        """A modern call, for which no process is started but its own."""
        params = wire.modern({"name": "echo", "arguments": {"text": text}})
        return peer.request(ident, "tools/call", params)

    def left(self):
        """Directories of cgroups, and what lies in the directories that cells make something in; root's cells do so in /tmp."""
        names = (f"toolcell-{launcher}-*" for launcher in self.launchers)
        private = {str(path) for name in names for path in pathlib.Path("/tmp").glob(name)}
        made = host.cgroup_directories() - self.before["cgroup directories"]
        return made | host.files(self.data, self.runtime) | private

    def assert_gone(self):
        """No process and no mount."""
        def gone():
            host.reap()
            return not host.descendants()
        self.assertTrue(host.until(gone, 5), f"still running: {host.descendants()}")
        self.assertEqual(host.mounts(), self.before["mounts"])

    def assert_recorded(self, count, ended):
        """The log is whole, so many calls began, and all ended unless nobody was left to say so."""
        verified = subprocess.run([case.TOOLCELL, "audit", "verify", self.audit], env=self.base, capture_output=True,
                                  text=True, check=False)
        self.assertEqual(verified.returncode, 0, verified.stdout + verified.stderr)
        calls = {event: [each["call"]["id"] for each in self.records() if each["event"] == event]
                 for event in ("started", "finished")}
        self.assertEqual(len(calls["started"]), count, calls)
        self.assertEqual(calls["finished"], calls["started"] if ended else [], calls)

    def kill_at(self, walks, victim, role, step):
        """One session whose first launch is stopped where `step` of `role` is done, and there `victim` is killed."""
        self.audit.unlink(missing_ok=True)
        self.audit.with_name(self.audit.name + ".checkpoint").unlink(missing_ok=True)
        wanted = self.work / "wanted.json"
        wanted.write_text(json.dumps({"victim": victim, "role": role, "step": step, **walks}), encoding="utf-8")
        command = [sys.executable, "-B", stepper.__file__, wanted, *self.around(), case.TOOLCELL, "run", *self.options, "tiny"]
        with wire.Wire(list(map(str, command)), self.base) as peer:
            try:
                answer = self.call(peer, 1, "never")
                self.assertNotEqual(victim, "supervisor", f"answered by the dead: {answer}")
                self.assertTrue(case.is_error(answer), answer)
                if victim == "init":
                    self.assertEqual(case.text_of(self.call(peer, 2, "after")), "after")
            except wire.Closed:
                self.assertEqual(victim, "supervisor", peer.stderr)
            peer.close_stdin()
            peer.wait_exit(10)
            told = peer.stderr
        done = json.loads(wanted.with_suffix(".done").read_text(encoding="utf-8"))
        self.assertTrue(done["reached"], f"{done}: {told}")
        self.launchers.append(done["launcher"])
        self.assert_gone()
        if victim != "launcher":
            # Whoever is left has cleaned up.
            self.assertEqual(self.left(), set())
        self.assert_recorded(2 if victim == "init" else 1, ended=victim != "supervisor")
        if victim == "init":
            return
        with wire.Wire([*self.around(), case.TOOLCELL, "run", *map(str, self.options), "tiny"], self.base) as peer:
            self.assertEqual(case.text_of(self.call(peer, 1, "again")), "again", peer.stderr)
        self.assert_gone()
        self.assertEqual(self.left(), set())

    def kill_everywhere(self, victim, roles):
        """In each step of these roles' parts, by name; then in the payload that has just become the server."""
        walks = dict(zip(("launcher", "init"), parts(self.plan())))
        places = [(role, step) for role in roles for step in dict.fromkeys(each[0] for each in walks[role])]
        places.append(("payload", "exec"))
        if self.steps:
            places = [(role, step) for role, step in places if step in self.steps]
            others = set() if "launcher" in roles else LAUNCHERS.keys()
            self.assertEqual(set(self.steps) - others, {step for _, step in places})
        for role, step in places:
            try:
                self.kill_at(walks, victim, role, step)
            except AssertionError as error:
                raise AssertionError(f"{victim} killed in `{step}` of {role}: {error}") from error

    def test_supervisor_killed_in_each_step(self):
        self.kill_everywhere("supervisor", ["launcher", "init"])

    def test_launcher_killed_in_each_step(self):
        self.kill_everywhere("launcher", ["launcher", "init"])

    def test_init_killed_in_each_step(self):
        self.kill_everywhere("init", ["init"])


class KillsAlone(Kills):
    """The same where no namespace can be made."""

    files = 'read = ["{data}"]\n'

    def setUp(self):
        super().setUp()
        self.write_profile("landlock")

    def around(self):
        if os.geteuid() == 0:
            return ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
        return ["unshare", "--user", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}", "--keep-caps",
                "sh", "-c", BELOW, "sh"]

    def plan(self):
        plan = super().plan()
        self.assertEqual(plan["floor"], "landlock")
        return plan


class KillsOverlays(Kills):
    """What a plan with overlays has besides."""

    files = 'write = ["{data}"]\nwrites = "discard"\n'
    steps = ("mount-changes", "mount-overlay", "detach-changes")


class KillsDoors(Kills):
    """What a plan with ways out and in has besides."""

    network = ('allow = ["10.9.8.7:5432"]\nallow-unix = ["/run/toolcell-kills"]\n'
               'listen = [{ port = 8080, at = "{runtime}/door" }]\n')
    steps = ("listen-outside", "rewrite-file", "make-socket", "open-doors")


class Steps(unittest.TestCase):
    """That no step is forgotten: a plan with another one is not walked through."""

    def test_none_of_the_document_is_left_out(self):
        # `open-places` is made in cells that are built before a call whose arguments say what it may see.
        known = set(stepper.STEPS) | set(LAUNCHERS) | {"open-places"}
        launches = (pathlib.Path(fixtures.HERE).parent / "docs" / "launch.md").read_text(encoding="utf-8")
        self.assertEqual(set(re.findall("^### `(.*)`$", launches, re.MULTILINE)), known)
