"""`toolcell serve` in front of a server, from the command line of `toolcell run`.

Neighbours: `test_http` and `conformance` talk to it. Never: lets one pass that does not start, or does not end in order.
"""

import contextlib
import signal
import subprocess


@contextlib.contextmanager
def served(command, env):
    """The address."""
    command = [*map(str, command)]
    command[1:2] = ["serve", "--http=127.0.0.1:0"]
    with subprocess.Popen(command, env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as front:
        said = []
        for line in front.stderr:
            said.append(line)
            if line.startswith("toolcell serves "):
                break
        else:
            raise AssertionError("".join(said))
        try:
            yield line.split()[-1]
        finally:
            front.send_signal(signal.SIGTERM)
            try:
                _, rest = front.communicate(timeout=20)
            finally:
                front.kill()
        if front.returncode != 0:
            raise AssertionError(f"`serve` ended with {front.returncode}:\n{rest}")
