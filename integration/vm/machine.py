"""One throw-away guest: boots a kernel on a copy-on-write disk, runs a job in it, and gives its output and exit status.

Neighbours: `kernels` and `image` make what is booted, `guest/job` runs in it, `lanes` says what. Never: keeps anything a
guest wrote, gives it a network, or leaves an emulator running.
"""

import os
import pathlib
import signal
import subprocess
import tempfile
import threading

from archive import Archive


class Ended:
    """A guest's lines and exit status; no status when it did not get that far, and what its console said."""

    def __init__(self, lines, status, console):
        self.lines, self.status, self.console = lines, status, console


def initramfs(kernel, guest, files):
    """The kernel's own, followed by the job's files."""
    archive = Archive()
    for name in ("pid1", "job"):
        archive.file(f"job/{name}", 0o755, (guest / name).read_bytes())
    for name, text in files.items():
        archive.file(f"job/{name}", 0o755, text.encode())
    return (kernel / "initramfs").read_bytes() + archive.finished()


def boot(tools, guest, kernel, disks, files, systemd=False, arguments="", limit=1800, show=print):
    """Runs one guest to its end; each line of its output is shown as it comes."""
    with tempfile.TemporaryDirectory(prefix="toolcell-vm-", dir="/var/tmp") as name:
        scene = pathlib.Path(name)
        (scene / "initramfs").write_bytes(initramfs(kernel, guest, files))
        kernel_arguments = f"console=ttyS0 quiet panic=-1 reboot=t mitigations=off random.trust_cpu=on {arguments}"
        if systemd:
            kernel_arguments += " vm.systemd systemd.unified_cgroup_hierarchy=1 systemd.show_status=0"
        # The processor is emulated also where /dev/kvm exists: it may be one that runs only some kernels.
        command = [tools.path("qemu-system-x86_64"), "-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "pc",
                   "-m", "1536", "-smp", "2", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                   "-monitor", "none", "-nic", "none", "-kernel", kernel / "vmlinuz", "-initrd", scene / "initramfs",
                   "-append", kernel_arguments, "-serial", f"file:{scene / 'console'}",
                   "-device", "virtio-serial-pci",
                   "-chardev", "file,id=out,path=/dev/stdout,append=on", "-device", "virtserialport,chardev=out,nr=1",
                   "-chardev", f"file,id=status,path={scene / 'status'}", "-device", "virtserialport,chardev=status,nr=2",
                   "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
        for folder in tools.firmware():
            command += ["-L", folder]
        for number, disk in enumerate(disks):
            command += ["-drive", f"file={disk},format=raw,if=none,id=d{number},snapshot=on,cache=unsafe",
                        "-device", f"virtio-blk-pci,drive=d{number}"]
        lines = []
        environment = {**tools.environment(), "TMPDIR": name}
        with subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *map(str, command)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              env=environment, start_new_session=True) as child:
            late = threading.Timer(limit, os.kill, (child.pid, signal.SIGKILL))
            late.start()
            try:
                for line in child.stdout:
                    lines.append(line.rstrip("\n"))
                    show(line.rstrip("\n"))
            finally:
                late.cancel()
                child.kill()
        status = (scene / "status").read_text(encoding="ascii").strip() if (scene / "status").exists() else ""
        console = (scene / "console").read_text(encoding="utf-8", errors="replace") if (scene / "console").exists() else ""
        return Ended(lines, int(status) if status.isdigit() else None, console.splitlines()[-30:])
