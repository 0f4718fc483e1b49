"""Runs `toolcell run` and stops it when a step of its first launch has been done; there it kills one of its processes.

    stepper.py FILE COMMAND…    FILE: what is wanted, in JSON, as `test_kills` writes it; FILE.done says what came of it

By ptrace(2) from the first instruction on: the program is the one that users have, and an ordinary user may stop processes that
nobody else may look at. Which step a process is in is told by the system calls that make the step what it is, in the order of
the plan. One of them that belongs to no step of the plan is an error, so that steps are not mistaken for one another.

    supervisor ── runs free     launcher ── stopped at each call ──► clone ──► init ── stopped at each call
                                                                                 │ the wanted step has been done
    nobody is traced any more ◄── the victim is dead ◄── SIGKILL to the victim ◄─┘ (who is there stays stopped meanwhile)

Neighbours: `test_kills` starts it. Never: lets who is at the step go on before the victim is dead; ends before its children.
"""

import ctypes
import json
import os
import pathlib
import signal
import sys

TRACEME, PEEKDATA, CONT, DETACH, SYSCALL = 0, 2, 7, 17, 24
SETOPTIONS, GETEVENTMSG, GET_SYSCALL_INFO = 0x4200, 0x4201, 0x420E
# Calls are told from signals; children and programs are followed; nobody stays stopped when this process dies.
OPTIONS = 1 | 2 | 4 | 16 | 1 << 20
EVENT_FORK, EVENT_VFORK, EVENT_EXEC = 1, 2, 4
WALL = 0x40000000
ENTRY, EXIT = 1, 2
PR_SET_NAME, PR_SET_NO_NEW_PRIVS = 15, 38
SIOCSIFFLAGS = 0x8914
O_CREAT, O_TRUNC = 0o100, 0o1000
CLONE_NEWCGROUP = 0x02000000
# Which of the supervisor's children is the launcher is known by its name, which it takes with its first calls.
FEW = 64

NUMBERS = {
    "read": 0, "write": 1, "ioctl": 16, "recvmsg": 47, "sendmsg": 46, "listen": 50, "flock": 73, "chdir": 80, "mkdir": 83,
    "setsid": 112, "setresuid": 117, "capset": 126, "pivot_root": 155, "prctl": 157, "mount": 165, "umount2": 166,
    "sethostname": 170, "openat": 257, "mkdirat": 258, "mknodat": 259, "symlinkat": 266, "unshare": 272,
    "prlimit64": 302, "seccomp": 317, "move_mount": 429, "close_range": 436, "openat2": 437,
    "landlock_create_ruleset": 444, "landlock_restrict_self": 446,
}
# What makes a step of init: a call, how often it is made, and what else of `ALONE` the step makes.
STEPS = {
    "map-ids": ("write", 3), "forbid-user-namespaces": ("write", 1), "isolate-mounts": ("mount", 1),
    "loopback-up": ("ioctl", 1), "set-hostname": ("sethostname", 1), "new-session": ("setsid", 1),
    "mount-root": ("move_mount", 1), "make-directory": ("mkdirat", 1), "make-file": ("openat2", 1),
    "rewrite-file": ("openat2", 1), "make-symlink": ("symlinkat", 1), "make-socket": ("mknodat", 1),
    "bind": ("move_mount", 1), "hide": ("move_mount", 1), "mount-scratch": ("move_mount", 1),
    "mount-proc": ("move_mount", 1), "mount-changes": ("move_mount", 1), "mount-overlay": ("move_mount", 2, "mkdirat"),
    "detach-changes": ("umount2", 1), "pivot-root": ("pivot_root", 1), "create-cgroup": ("recvmsg", 1),
    "join-cgroup": ("unshare", 1), "open-doors": ("sendmsg", 1), "close-descriptors": ("close_range", 1),
    "set-rlimit": ("prlimit64", 1), "set-ids": ("setresuid", 1), "unshare-user": ("write", 3),
    "drop-capabilities": ("capset", 1), "no-new-privileges": ("prctl", 1),
    "hold-processes": ("landlock_create_ruleset", 1), "landlock": ("landlock_restrict_self", 1),
    "seccomp": ("seccomp", 1), "verify": ("read", 1), "exec": ("chdir", 1),
}
# Init makes these in its steps alone.
ALONE = {"mount", "sethostname", "setsid", "move_mount", "mkdirat", "symlinkat", "mknodat", "pivot_root", "close_range",
         "setresuid", "capset", "landlock_restrict_self"}
NAMES = {number: name for name, number in NUMBERS.items()}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Mistaken(Exception):
    """The launch is not the plan's."""


def ptrace(request, pid, address=0, data=0):
    """ptrace(2). Of a process that was killed while it was stopped it says that there is none."""
    ctypes.set_errno(0)
    answer = libc.ptrace(request, pid, address, data)
    if answer == -1 and (number := ctypes.get_errno()):
        raise OSError(number, os.strerror(number))
    return answer


class Info(ctypes.Structure):
    """struct ptrace_syscall_info: at an entry the number and the arguments, at an exit what came back."""

    _fields_ = [("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32),
                ("instruction", ctypes.c_uint64), ("stack", ctypes.c_uint64), ("words", ctypes.c_int64 * 8)]


def info(pid):
    """The call at whose entry or exit a process is stopped."""
    found = Info()
    ptrace(GET_SYSCALL_INFO, pid, ctypes.sizeof(found), ctypes.addressof(found))
    return found


def command_name(pid):
    """The name that a process has given itself; none if it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").rstrip("\n")
    except OSError:
        return ""


def parent(pid):
    """Whose child a process is."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])


def belongs(step, call, arguments, pid):
    """Whether a call of this name is the one of the step that it is looked for."""
    if call == "ioctl":
        return arguments[1] == SIOCSIFFLAGS
    if call == "prctl":
        return arguments[0] == PR_SET_NO_NEW_PRIVS
    if call == "prlimit64":
        return arguments[2] != 0
    if call == "openat2":
        flags = ptrace(PEEKDATA, pid, arguments[2])
        return bool(flags & (O_CREAT if step == "make-file" else O_TRUNC))
    if call == "unshare":
        return arguments[0] == CLONE_NEWCGROUP
    return True


class Walk:
    """One process's way through its part of the plan: a list of [step, call, how often, other calls]."""

    def __init__(self, steps, alone):
        self.steps = steps
        self.alone = alone
        self.at = 0
        self.seen = 0
        self.entered = None

    def stop(self, pid):
        """The step that is done with the call at whose exit `pid` is, if it is one that does so."""
        found = info(pid)
        if found.op == ENTRY:
            call = NAMES.get(found.words[0])
            self.entered = call and (call, list(found.words[1:7]))
        elif found.op == EXIT and self.entered and self.at < len(self.steps):
            call, arguments = self.entered
            self.entered = None
            step, wanted, often, others = self.steps[self.at]
            # What verifies looks whether something is refused.
            if found.words[0] >= 0 or step == "verify":
                if call == wanted and belongs(step, call, arguments, pid):
                    self.seen += 1
                    if self.seen == often:
                        self.next()
                        return step
                elif call in self.alone and call not in others:
                    raise Mistaken(f"{call} of {command_name(pid)} before `{step}` is done")
        return None

    def next(self):
        """The step is done."""
        self.at, self.seen = self.at + 1, 0


class Stepper:
    """All processes that are traced, and what each of them is."""

    def __init__(self, wanted, command):
        self.victim, self.role, self.step = wanted["victim"], wanted["role"], wanted["step"]
        self.walks = {"launcher": Walk(wanted["launcher"], set()), "init": Walk(wanted["init"], ALONE)}
        self.pids = {}
        self.roles = {}
        self.looks = {}
        # Of the launcher: its stopped self and the child, of which it is not known yet what it is.
        self.cloned = None
        self.early = set()
        self.held = None
        self.done = {"reached": False}
        pid = os.fork()
        if pid == 0:
            ptrace(TRACEME, 0)
            os.execvpe(command[0], command, os.environ)
        self.be("supervisor", pid)
        # The session's ends are the supervisor's alone.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.waitpid(pid, 0)
        ptrace(SETOPTIONS, pid, 0, OPTIONS)
        ptrace(CONT, pid)

    def be(self, role, pid):
        """A process is known from here on."""
        self.pids[role] = pid
        self.roles[pid] = role

    def run(self):
        """Until nobody is left who was started here or is traced."""
        while True:
            try:
                pid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                self.ended(pid)
                continue
            number, event = os.WSTOPSIG(status), status >> 16
            try:
                self.stopped(pid, number, event)
            except ProcessLookupError:
                # Killed meanwhile; its end is told next.
                continue

    def ended(self, pid):
        """Once the victim is dead, who was held goes on."""
        if self.done["reached"] and pid == self.pids[self.victim] and self.held:
            held, self.held = self.held, None
            # Who is ended by others is ended where it is; nobody but the kernel needs it to go on for that.
            if not (self.role in ("init", "payload") and self.victim == "supervisor"):
                try:
                    ptrace(DETACH, held)
                except ProcessLookupError:
                    pass

    def stopped(self, pid, number, event):
        """A process is stopped: by a call, by an event, or by a signal on its way to it."""
        call = number == signal.SIGTRAP | 0x80
        forwarded = 0 if call or event or number in (signal.SIGTRAP, signal.SIGSTOP) else number
        if self.done["reached"]:
            if pid != self.held:
                ptrace(DETACH, pid, 0, forwarded)
            return
        role = self.roles.get(pid)
        if role == "supervisor":
            ptrace(CONT, pid, 0, forwarded)
        elif role == "launcher" and event == EVENT_FORK:
            message = ctypes.c_ulong()
            ptrace(GETEVENTMSG, pid, 0, ctypes.addressof(message))
            self.cloned = (pid, message.value)
            if message.value in self.early:
                self.unknown(message.value)
        elif role == "init" and event == EVENT_VFORK:
            ptrace(CONT, pid)
        elif event == EVENT_EXEC:
            payload = self.walks["init"].at == len(self.walks["init"].steps)
            if payload:
                self.be("payload", pid)
                self.reached("payload", "exec", pid)
            if not self.held:
                ptrace(DETACH, pid)
        elif call and role in self.walks:
            step = self.walks[role].stop(pid)
            if not step or not self.reached(role, step, pid):
                ptrace(SYSCALL, pid)
        elif call:
            self.unknown(pid)
        else:
            ptrace(SYSCALL, pid, 0, forwarded)

    def unknown(self, pid):
        """A child says by its first calls what it is."""
        found = info(pid)
        launcher = self.pids.get("launcher")
        if self.cloned and self.cloned[1] == pid:
            # The first thing that it asks of the kernel for itself: an init takes its name, others only tie themselves.
            if found.op != ENTRY or found.words[0] != NUMBERS["prctl"]:
                ptrace(SYSCALL, pid)
            elif found.words[1] == PR_SET_NAME:
                self.cloned = None
                self.begin(launcher, pid)
            else:
                self.cloned = None
                ptrace(DETACH, pid)
                ptrace(SYSCALL, launcher)
        elif launcher and parent(pid) == launcher:
            # It was quicker than the word of it.
            self.early.add(pid)
        elif command_name(pid) == "toolcell-launch":
            self.be("launcher", pid)
            ptrace(SYSCALL, pid)
        else:
            self.looks[pid] = self.looks.get(pid, 0) + 1
            ptrace(SYSCALL if self.looks[pid] < FEW else DETACH, pid)

    def begin(self, launcher, init):
        """There is an init, and the launcher's step is done."""
        self.be("init", init)
        walk = self.walks["launcher"]
        if walk.steps[walk.at][0] != "clone":
            raise Mistaken(f"cloned before `{walk.steps[walk.at][0]}` is done")
        walk.next()
        if not self.reached("launcher", "clone", launcher):
            ptrace(SYSCALL, launcher)
        ptrace(DETACH if self.done["reached"] else SYSCALL, init)

    def reached(self, role, step, pid):
        """Kills the victim if this is the place for it."""
        if (role, step) != (self.role, self.step):
            return False
        self.done = {"reached": True, "launcher": self.pids["launcher"]}
        self.held = None if self.pids[self.victim] == pid else pid
        os.kill(self.pids[self.victim], signal.SIGKILL)
        return True


def main():
    """Runs it, and writes down what came of it."""
    path = pathlib.Path(sys.argv[1])
    stepper = Stepper(json.loads(path.read_text(encoding="utf-8")), sys.argv[2:])
    try:
        stepper.run()
    except Mistaken as error:
        stepper.done["mistaken"] = str(error)
    stepper.done["left"] = {role: walk.steps[walk.at][0] for role, walk in stepper.walks.items()
                            if walk.at < len(walk.steps)}
    path.with_suffix(".done").write_text(json.dumps(stepper.done), encoding="utf-8")


if __name__ == "__main__":
    main()
