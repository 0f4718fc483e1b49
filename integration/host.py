"""What of the host a test may count before and after: processes, mounts, cgroup directories, files, descriptors.

Neighbours: `case` takes a census around each test, `test_life` and `test_kills` look at single processes.
Never: kills or changes anything; `adopt` alone changes this process, once.
"""

import ctypes
import os
import pathlib
import time

PR_SET_CHILD_SUBREAPER = 36
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "freezer")


def adopt():
    """Makes this process the parent of every orphan below it, so that none can hide at pid 1."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def processes():
    """pid → (parent, state, name) of all processes that can be seen."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = pathlib.Path("/proc", name, "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            # The name may hold spaces and brackets: the last bracket ends it.
            head, _, tail = stat.rpartition(")")
            state, parent = tail.split()[:2]
            found[int(name)] = (int(parent), state, head.partition("(")[2])
    return found


def children(pid, table=None):
    """Process ids of the children of `pid`."""
    return sorted(child for child, (parent, _, _) in (table or processes()).items() if parent == pid)


def launchers(supervisor, table=None):
    """Process ids of a supervisor's launchers; its other child is the guard."""
    table = table or processes()
    return [pid for pid in children(supervisor, table) if table[pid][2] == "toolcell-launch"]


def descendants(pid=None, spare=()):
    """pid → name of everything alive below `pid` (this process by default), but for `spare` and what is below those."""
    table = processes()
    found, todo = {}, [pid or os.getpid()]
    while todo:
        for child in children(todo.pop(), table):
            if child not in spare and table[child][1] not in "ZX":
                found[child] = table[child][2]
            if child not in spare:
                todo.append(child)
    return found


def stopped(pid):
    """Whether there is something below an init, and all of it is stopped: a server that waits for its call."""
    table = processes()
    states = [table[below][1] for below in descendants(pid) if below in table]
    return bool(states) and set(states) == {"T"}


def at_work(launcher):
    """The inits of cells that serve a call or the catalogue; others wait for a call: they are built, or their server is stopped."""
    return sorted(pid for pid in children(launcher) if descendants(pid) and not stopped(pid))


def at_rest(launcher):
    """Whether nothing is below a launcher but cells that wait for a call."""
    table = processes()
    return all(table[pid][2] == "toolcell-ready" or stopped(pid) for pid in children(launcher, table))


def reap(known=()):
    """Takes the exit status of orphans that were adopted and are dead; `known` are somebody else's to wait for."""
    for pid, (parent, state, _) in processes().items():
        if parent == os.getpid() and state == "Z" and pid not in known:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def until(condition, timeout):
    """Whether `condition()` came true before the deadline; for state of the kernel that has no event to wait for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def descriptors(pid):
    """Number of open descriptors of a process: the directory's size (Linux 6.2), which can be had of any."""
    return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))


def mounts():
    """The mount points of this process's mount namespace."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return sorted(line.split()[4] for line in lines)


def unescape(text):
    """A path of mountinfo, whose blanks are octal."""
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def cgroups():
    """Controller → directory of this process, on v1; the key of the v2 hierarchy is the empty name."""
    where = {}
    for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        fields = before.split()
        if kind == "cgroup":
            for option in options.split(" ")[-1].split(","):
                where[option] = (unescape(fields[3]), unescape(fields[4]))
        elif kind == "cgroup2":
            where[""] = (unescape(fields[3]), unescape(fields[4]))
    found = {}
    for line in pathlib.Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            if name in where and (name == "" or name in CONTROLLERS):
                root, point = where[name]
                below = os.path.relpath(path, root)
                if not below.startswith(".."):
                    found[name] = pathlib.Path(point, below)
    # Beside those of v1 it carries none of these.
    if "" in found and not {*CONTROLLERS} & {*(found[""] / "cgroup.controllers").read_text(encoding="ascii").split()}:
        del found[""]
    return found


def cgroup_directories():
    """All directories below this process's own, in every hierarchy that carries limits."""
    found = set()
    for top in set(cgroups().values()):
        for base, names, _ in os.walk(top):
            found.update(os.path.join(base, name) for name in names)
    return found


def files(*tops):
    """All files and directories below the given ones."""
    found = set()
    for top in tops:
        for base, names, plain in os.walk(top):
            found.update(os.path.join(base, name) for name in names + plain)
    return found
