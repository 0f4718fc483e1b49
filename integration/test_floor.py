"""An ordinary user to whom no cgroup is delegated: refused by default, served when a lower floor is accepted.

Neighbours: `delegation` makes the directories that are closed to the user.
Never: runs as root, to whom every directory is open.
"""

import os
import pathlib
import shutil
import subprocess

import case
import fixtures
import wire


class Floor(case.Case):
    """Started in a cgroup where the user may make none."""

    only = "user"

    def setUp(self):
        super().setUp()
        if not case.CLOSED and self.full:
            self.need(False, "no cgroup v1 directory in which a closed one can be made")

    def enter_closed(self):
        """Moves this process into the closed directories; runs between fork and exec."""
        for directory in case.CLOSED:
            pathlib.Path(directory, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    def command(self, *options):
        """tiny in cells, without the help that other tests have with the floor."""
        return fixtures.tiny().wrapped(case.TOOLCELL, f"--audit={self.audit}", *options)

    def test_refused_with_a_reason(self):
        done = subprocess.run(self.command(), input=b"", capture_output=True, timeout=10, check=False, env=self.base,
                              preexec_fn=self.enter_closed)
        told = done.stderr.decode()
        self.assertEqual(done.returncode, case.REFUSED, told)
        self.assertEqual(done.stdout, b"")
        for word in ("cgroup", "hint:", "--floor no-cgroup"):
            self.assertIn(word, told)

    def test_served_when_no_cgroup_is_accepted(self):
        # A shell moves itself first, so that `wire` need not know of cgroups.
        move = 'for d in $OUTSIDE_CLOSED; do echo $$ > "$d/cgroup.procs" || exit 99; done; exec "$@"'
        moved = ["/bin/sh", "-c", move, "sh", *self.command("--floor=no-cgroup")]
        with wire.Wire(moved, {**self.base, "OUTSIDE_CLOSED": " ".join(case.CLOSED)}) as peer:
            peer.open()
            self.assertEqual(case.text_of(peer.call(1, "echo", {"text": "served"})), "served")
            self.assertEqual(case.text_of(peer.call(2, "scratch", {"size": 1 << 30})), "ENOSPC")

    def test_nothing_is_fetched(self):
        data = self.directory("data")
        own = {"XDG_DATA_HOME": str(data), "XDG_STATE_HOME": str(data)}
        done = subprocess.run([case.TOOLCELL, "install", "npm:anything"], stdin=subprocess.DEVNULL, capture_output=True,
                              check=False, env={**self.base, **own}, preexec_fn=self.enter_closed)
        # npm makes it when it is asked where its registry is.
        shutil.rmtree(self.home / ".npm", ignore_errors=True)
        told = done.stderr.decode()
        self.assertEqual(done.returncode, case.REFUSED, told)
        self.assertIn("hint: let an administrator make directories of your own", told)
        self.assertIn("error: nothing was fetched: what keeps `npm` from running in a cell is above", told)
        self.assertNotIn("--net", told)

    def test_doctor_agrees(self):
        done = subprocess.run([case.TOOLCELL, "doctor"], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=10, env=self.base, preexec_fn=self.enter_closed)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertIn("no-cgroup", done.stdout.decode())
