"""A cpio archive as the kernel reads one: what a guest has before it has a disk. Pure.

Neighbours: `kernels` puts programs and modules into one, `machine` the job. Never: reads or writes a file.
"""


class Archive:
    """Names and their contents, in the `newc` format."""

    def __init__(self):
        self.data = b""
        self.number = 0

    def entry(self, name, mode, content):
        """One name."""
        self.number += 1
        encoded = name.encode() + b"\0"
        fields = [self.number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
        self.data += padded(b"070701" + b"".join(b"%08x" % field for field in fields) + encoded) + padded(content)

    def file(self, name, mode, content):
        """A file."""
        self.directories(name)
        self.entry(name, 0o100000 | mode, content)

    def directory(self, name):
        """A directory."""
        self.directories(name)
        self.entry(name, 0o40755, b"")

    def directories(self, name):
        """Those above a name. That one is named again does no harm."""
        parts = name.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            self.entry("/".join(parts[:count]), 0o40755, b"")

    def finished(self):
        """The bytes, so that another archive may follow."""
        self.entry("TRAILER!!!", 0, b"")
        self.number = 0
        return self.data + b"\0" * (-len(self.data) % 512)


def padded(data):
    """To a multiple of four."""
    return data + b"\0" * (-len(data) % 4)
