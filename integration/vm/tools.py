"""The programs that make and run guests, from Debian's packages: unpacked into the cache, never installed.

Neighbours: `packages` fetches them. Never: touches what the machine has installed; installing an emulator of another
version than the machine's disk tools would make apt remove those.
"""

import os
import shutil

from packages import Missing, run, unpack

PACKAGES = ["qemu-system-x86", "qemu-system-data", "mmdebstrap", "busybox-static", "e2fsprogs"]


class Tools:
    """Programs by name, with the environment that they need."""

    def __init__(self, base, packages):
        self.base = base / "tools"
        self.packages = packages

    def prepare(self):
        """Fetches and unpacks, once."""
        # The libraries that were not fetched are the machine's, and may have gone since.
        try:
            self.run("qemu-system-x86_64", "--version")
            return
        except Missing:
            shutil.rmtree(self.base, ignore_errors=True)
        unpack(self.packages.programs(*PACKAGES), self.base)
        self.run("qemu-system-x86_64", "--version")

    def path(self, name):
        """A program: of the unpacked ones, else of the machine."""
        for folder in ("usr/bin", "bin", "usr/sbin", "sbin"):
            if (self.base / folder / name).exists():
                return str(self.base / folder / name)
        raise Missing(f"`{name}` is in none of the packages")

    def environment(self):
        """Libraries that the machine lacks come from the unpacked packages, and so do programs that programs start."""
        folders = [self.base / folder for folder in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")]
        return {**os.environ, "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": ":".join(map(str, folders)),
                "PATH": f"{os.environ['PATH']}:{self.base / 'usr/bin'}"}

    def run(self, name, *arguments, before=()):
        """Runs a program to its end, through another one if that is put before."""
        return run(*before, self.path(name), *arguments, env=self.environment())

    def firmware(self):
        """Folders with what the emulated machine starts from."""
        return [self.base / "usr/share" / name for name in ("qemu", "seabios")] + ["/usr/share/qemu", "/usr/share/seabios"]
