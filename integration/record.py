"""Stands between a client and a server on stdio and writes down every line of both, byte for byte.

Neighbours: `test_bytes` puts one before toolcell and one into every cell, and compares what they wrote.
Never: changes, holds back or reorders a byte.

    record.py DIRECTORY COMMAND…

One file a process: a line starts with `>` if it went to the server, with `<` if it came from it.
"""

import os
import subprocess
import sys
import threading


def main():
    """Copies until the server has said its last."""
    # Processes of different cells have the same ids.
    path = os.path.join(sys.argv[1], os.urandom(8).hex())
    # Written in one piece each, at the end.
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def to_server():
        for line in sys.stdin.buffer:
            os.write(out, b">" + line)
            try:
                child.stdin.write(line)
                child.stdin.flush()
            except BrokenPipeError:
                break
        try:
            child.stdin.close()
        except BrokenPipeError:
            pass

    threading.Thread(target=to_server, daemon=True).start()
    for line in child.stdout:
        os.write(out, b"<" + line)
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    # The thread may hold the lock of stdin: nothing is cleaned up that needs it.
    os._exit(child.wait() & 0xff)


main()
