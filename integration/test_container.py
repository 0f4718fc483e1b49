"""Real containers, as runc of Debian makes them: what toolcell finds out about them, and what it does in them.

Neighbours: `scripts/fixtures` installed runc. Never: pulls an image: a container's root is made of the host's own programs, read-only.
"""

import json
import os
import subprocess

import case
import fixtures

# What a container sees of the host, for its programs.
SHOWN = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc"]
ORDINARY = 1000


class Container(case.Case):
    """As the specification of the Open Container Initiative has it by default: parts of /proc covered, no new privileges."""

    only = "root"

    def setUp(self):
        super().setUp()
        root = self.directory("bundle") / "rootfs"
        for path in [*SHOWN, "/tmp"]:
            root.joinpath(path[1:]).mkdir(parents=True)
        root.joinpath("toolcell").touch()
        self.runc = [str(fixtures.RUNC), "--root", str(self.work / "runc")]
        subprocess.run([*self.runc, "spec"], cwd=root.parent, check=True)
        self.config = json.loads(root.parent.joinpath("config.json").read_text(encoding="utf-8"))
        binds = [*((path, path) for path in SHOWN), (case.TOOLCELL, "/toolcell")]
        self.config["mounts"] += [{"destination": path, "source": source, "type": "bind", "options": ["rbind", "ro"]}
                                  for source, path in binds if os.path.exists(source)]
        self.config["mounts"].append({"destination": "/tmp", "source": "tmpfs", "type": "tmpfs", "options": ["mode=1777"]})
        root.joinpath("tmp").chmod(0o1777)

    def toolcell(self, *arguments, uid=ORDINARY):
        """What toolcell says in a container, and its exit status."""
        name = f"toolcell-test-{os.getpid()}"
        self.config["process"].update(terminal=False, args=["/toolcell", *arguments], user={"uid": uid, "gid": uid})
        self.work.joinpath("bundle", "config.json").write_text(json.dumps(self.config), encoding="utf-8")
        try:
            return subprocess.run([*self.runc, "run", "--bundle", str(self.work / "bundle"), name], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=120, check=False)
        finally:
            subprocess.run([*self.runc, "delete", "--force", name], check=False, stderr=subprocess.DEVNULL)

    def causes(self, uid):
        """What the doctor names, by layer."""
        report = json.loads(self.toolcell("doctor", "--json", uid=uid).stdout)
        return {finding["layer"]: finding["cause"] for finding in report["findings"]}

    def test_as_it_comes(self):
        """No user namespace can be closed there: the doctor says so, and a cell without any is one rung lower."""
        told = "/proc/sys is read-only here"
        self.assertTrue(self.causes(ORDINARY)["user-namespace"].startswith(told))
        refused = self.toolcell("exec", "--floor", "no-cgroup", "--", "/bin/true")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(told, refused.stderr)
        lower = self.toolcell("exec", "--floor", "landlock", "--", "/bin/true")
        self.assertEqual((lower.returncode, lower.stderr), (0, ""))

    def test_uncovered(self):
        """With all of /proc an ordinary user has every layer there but the limits: nothing escapes but what SECURITY.md names there."""
        self.config["linux"].update(maskedPaths=[], readonlyPaths=[])
        done = self.toolcell("demo", "--floor", "no-cgroup")
        self.assertIn("isolation verified from inside: no-cgroup", done.stdout, done.stderr)
        escaped = [line.split("  ")[0].removeprefix(" ESCAPED ") for line in done.stdout.splitlines()
                   if line.startswith((" ESCAPED ", " UNCLEAR "))]
        self.assertEqual(escaped, ["fill files without a name"], done.stdout)

    def test_root(self):
        """Root there cannot do what toolcell does as root; what it lacks is named."""
        causes = self.causes(0)
        self.assertEqual({causes[layer] for layer in ("user-namespace", "mount-namespace", "pid-namespace")},
                         {"root has no CAP_SYS_ADMIN here, as in containers"})
        refused = self.toolcell("exec", "--floor", "no-cgroup", "--", "/bin/true", uid=0)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("run toolcell as an ordinary user there", refused.stderr)
