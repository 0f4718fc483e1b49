"""Hands an ordinary user a place for cgroups, as an administrator would, and one without; on hosts with v1 controllers.

Neighbours: `run` uses it around the tests of the ordinary user, also when that user has started them. On v2 a user's own systemd does the same.
Never: touches a directory that it did not make, and leaves none behind.
"""

import os
import pathlib
import time

import host

PREFIX = "outside-"


class Places:
    """Directories in each v1 hierarchy below this process's own.

    `root/` is where root's own tests run; `open/` belongs to the user; `closed/` lets the user in, who can make nothing in it:
    it is root's or, where the user makes it, not to be written to.
    """

    def __init__(self, uid):
        self.tops = []
        self.uid = uid
        for controller, base in host.cgroups().items():
            if controller == "":
                continue
            sweep(base)
            top = base / f"{PREFIX}{os.getpid()}"
            try:
                for directory in (top, top / "root", top / "open", top / "closed"):
                    directory.mkdir()
            except OSError:
                # Read-only or not ours, as in most containers: the tests then run on a weaker floor and say so.
                remove(top)
                continue
            self.tops.append(top)
            for path in (top / "open", *(top / "open").iterdir()):
                os.chown(path, uid, uid)
            for name in ("cgroup.procs", "tasks"):
                os.chown(top / "closed" / name, uid, uid)
            (top / "closed").chmod(0o555)

    def enter(self, name):
        """Moves this process into `name/` of each hierarchy. Called in a child between fork and exec, too."""
        for top in self.tops:
            (top / name / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")

    def closed(self):
        """The closed directories."""
        return [str(top / "closed") for top in self.tops]

    def remove(self):
        """Removes all, and whatever a failed test left in it."""
        for top in self.tops:
            remove(top)


def remove(top):
    """Removes a directory made here, deepest first; what still runs in it is killed, for it is a test's."""
    deadline = time.monotonic() + 3
    while top.exists():
        for base, _, _ in os.walk(top, topdown=False):
            directory = pathlib.Path(base)
            try:
                for pid in (directory / "cgroup.procs").read_text(encoding="ascii").split():
                    if int(pid) != os.getpid():
                        os.kill(int(pid), 9)
                directory.rmdir()
            except OSError:
                continue
        if time.monotonic() > deadline:
            print(f"left behind: {top}", flush=True)
            return
        time.sleep(0.01)


def sweep(base):
    """Removes what an earlier run left behind that was itself killed."""
    for old in base.glob(f"{PREFIX}*"):
        number = old.name.removeprefix(PREFIX)
        if number.isdigit() and not pathlib.Path("/proc", number).exists():
            remove(old)
