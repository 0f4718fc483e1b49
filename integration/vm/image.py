"""The guest's disk: a small Debian with systemd, and the folder with what is tested. No mount and no loop device.

Neighbours: `packages` has the sources, `tools` mmdebstrap and mke2fs, `guest/` what is put in. Never: boots it.
"""

import pathlib
import shutil

SUITE = "trixie"
INCLUDE = ["systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "login", "util-linux", "kmod",
           "apparmor", "python3-minimal", "python3", "perl", "procps", "curl", "iproute2"]
# Units that wait for hardware, write what is thrown away, or ask questions.
MASKED = ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
          "e2scrub_reap.service", "fstrim.timer", "systemd-tmpfiles-clean.timer", "getty.target", "apparmor.service",
          "systemd-udev-trigger.service", "systemd-udevd.service", "systemd-udevd-control.socket",
          "systemd-udevd-kernel.socket", "systemd-hwdb-update.service", "ldconfig.service",
          "systemd-journal-catalog-update.service", "systemd-journal-flush.service", "systemd-random-seed.service",
          "systemd-update-done.service", "systemd-firstboot.service", "systemd-machine-id-commit.service",
          "systemd-pcrphase.service", "systemd-pstore.service", "systemd-remount-fs.service", "dev-hugepages.mount"]
USER = 1000


class Image:
    """The disks, kept in the cache."""

    def __init__(self, base, packages, tools, guest):
        self.base = base / "image"
        self.packages, self.tools, self.guest = packages, tools, guest

    def prepare(self):
        """The root disk, made once for each state of this file and of the service."""
        disk = self.base / "root.ext4"
        recipe = pathlib.Path(__file__).read_text(encoding="utf-8") + (self.guest / "vm.service").read_text(encoding="utf-8")
        stamp = self.base / "made-with"
        if stamp.exists() and stamp.read_text(encoding="utf-8") == recipe:
            return disk
        self.base.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        tree = self.base / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        self.bootstrap(tree)
        self.arrange(tree)
        self.disk(tree, disk, "root_owner=0:0")
        shutil.rmtree(tree)
        stamp.write_text(recipe, encoding="utf-8")
        return disk

    def bootstrap(self, tree):
        """Debian's packages, in a mount namespace of their own: nothing of theirs is ever mounted for others."""
        sources = self.base / "sources.list"
        suites = self.packages.sources()
        sources.write_text(f"{suites[SUITE]}\n{suites[f'{SUITE}-security']}\n", encoding="utf-8")
        leave = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("man", "doc", "locale", "info")]
        self.tools.run("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory", *leave,
                       "--aptopt=APT::Sandbox::User \"root\"", f"--include={','.join(INCLUDE)}", SUITE, tree, sources,
                       before=("unshare", "--mount"))

    def arrange(self, tree):
        """A user, and a service that runs the job."""
        etc = tree / "etc"
        for name, line in {"passwd": f"dev:x:{USER}:{USER}:dev:/home/dev:/bin/bash", "group": f"dev:x:{USER}:",
                           "shadow": "dev:*:20000:0:99999:7:::"}.items():
            with open(etc / name, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        home = tree / "home" / "dev"
        home.mkdir()
        shutil.chown(home, USER, USER)
        for name, text in {"hostname": "guest\n", "hosts": "127.0.0.1 localhost guest\n", "fstab": "",
                           "machine-id": "0123456789abcdef0123456789abcdef\n"}.items():
            (etc / name).write_text(text, encoding="utf-8")
        units = etc / "systemd" / "system"
        for name in MASKED:
            (units / name).unlink(missing_ok=True)
            (units / name).symlink_to("/dev/null")
        shutil.copy(self.guest / "vm.service", units)
        (units / "multi-user.target.wants").mkdir(exist_ok=True)
        (units / "multi-user.target.wants" / "vm.service").symlink_to("../vm.service")

    def disk(self, tree, disk, *extended):
        """A file system with what is in a folder."""
        size = sum(path.lstat().st_size for path in tree.rglob("*")) // (1 << 20)
        disk.unlink(missing_ok=True)
        self.tools.run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-E",
                       ",".join(["lazy_itable_init=1", *extended]), "-d", tree, disk, f"{size * 5 // 4 + 600}M")
