"""Kernels by version, each with the initramfs that finds the guest's disk.

Neighbours: `packages` fetches them, `guest/initramfs` is the program in it, `machine` boots them. Never: installs one.
"""

import lzma
import pathlib
import re
import shutil

from archive import Archive
from packages import unpack

# What the disk, the ports, the root file system and reviewed writes need; newer kernels have most of it built in. On a
# machine with `modprobe` the kernel loads the last one by itself.
MODULES = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_rng", "ext4", "overlay", "dummy"]


class Kernels:
    """The unpacked kernels."""

    def __init__(self, base, packages, tools, guest):
        self.base = base / "kernels"
        self.packages, self.tools, self.guest = packages, tools, guest

    def prepare(self, version):
        """A kernel's directory with `vmlinuz` and `initramfs`, made once for each state of the program in it."""
        target = self.base / version
        program = (self.guest / "initramfs").read_bytes()
        made_with = program + " ".join(MODULES).encode()
        stamp = target / "made-with"
        if stamp.exists() and stamp.read_bytes() == made_with:
            return target
        if not (target / "fetched").exists():
            shutil.rmtree(target, ignore_errors=True)
            self.fetch(version, target)
            (target / "fetched").touch()
        (target / "initramfs").write_bytes(self.initramfs(modules(target), program))
        stamp.write_bytes(made_with)
        return target

    def fetch(self, version, target):
        """The kernel and its modules."""
        release = self.packages.newest_kernel(f"{version}.").removeprefix("linux-image-")
        # Since 7 the image package only names the others.
        parts = ("binary", "modules", "base") if version.startswith("7") else ("image",)
        unpack(self.packages.kernel(*[f"linux-{part}-{release}" for part in parts]), target)
        found = [*target.glob("boot/vmlinuz-*"), *target.glob("usr/lib/modules/*/vmlinuz")]
        shutil.move(found[0], target / "vmlinuz")

    def initramfs(self, loaded, program):
        """busybox, the modules in the order in which they are to be loaded, and the program."""
        archive = Archive()
        archive.file("bin/busybox", 0o755, pathlib.Path(self.tools.path("busybox")).read_bytes())
        archive.file("init", 0o755, program)
        for folder in ("proc", "sys", "dev", "root"):
            archive.directory(folder)
        for name, content in loaded.items():
            archive.file(f"modules/{name}.ko", 0o644, content)
        archive.file("modules/order", 0o644, "".join(f"{name}\n" for name in loaded).encode())
        return archive.finished()


def modules(target):
    """The content of each module that is needed, those first that others need."""
    files = {path.name.split(".")[0].replace("-", "_"): path
             for folder in ("lib", "usr/lib") for path in (target / folder / "modules").glob("**/*.ko*")}
    found = {}

    def add(name):
        # One that has no file is built in.
        if name in found or name not in files:
            return
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        needs = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in needs[1].decode().split(",") if needs else []:
            add(other.replace("-", "_"))
        # crc32c is asked for by its role, which no list of dependencies names.
        if name == "ext4":
            add("crc32c_generic")
        found[name] = content

    for name in MODULES:
        add(name)
    return found
