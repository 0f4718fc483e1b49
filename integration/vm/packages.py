"""Fetches Debian packages without installing them: a private apt configuration, made from the machine's own sources.

Neighbours: `tools` unpacks programs, `kernels` kernels; `image` hands the sources to mmdebstrap.
Never: changes a package, a source or a list of the machine, and names no host of its own.
"""

import pathlib
import re
import shutil
import subprocess

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Suite, and whether it is on the security mirror.
SUITES = [("bookworm", False), ("bookworm-backports", False), ("trixie", False), ("trixie-backports", False),
          ("bullseye", False), ("bookworm-security", True), ("trixie-security", True)]


class Missing(Exception):
    """Something of the machine without which no guest can be made."""


def run(*command, **options):
    """Runs a command; its output is shown only when it fails."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False, **options)
    if done.returncode != 0:
        raise Missing(f"`{' '.join(map(str, command[:6]))} …` failed with {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


def mirrors():
    """The machine's mirror of Debian, and that of its security updates."""
    text = ""
    for path in (pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*"))):
        if path.suffix in (".list", ".sources") and path.is_file():
            text += path.read_text(encoding="utf-8", errors="replace") + "\n"
    found = re.findall(r"^(?:URIs:|deb(?:\s+\[[^]]*\])?)\s+(\S+?)/?(?:\s|$)", text, re.MULTILINE)
    debian = next((uri for uri in found if uri.endswith("/debian")), None)
    if debian is None or not pathlib.Path(KEYRING).exists():
        raise Missing("guests are made from Debian's packages, and this machine has no mirror of Debian in its apt sources")
    return debian, next((uri for uri in found if uri.endswith("/debian-security")), f"{debian}-security")


class Packages:
    """One private apt directory."""

    def __init__(self, base):
        self.base = base / "apt"
        self.configuration = self.base / "apt.conf"

    def sources(self):
        """The lines of a sources.list, by suite."""
        debian, security = mirrors()
        option = f"[signed-by={KEYRING} arch=amd64]"
        return {suite: f"deb {option} {security if secure else debian} {suite} main" for suite, secure in SUITES}

    def prepare(self):
        """Writes the configuration and reads the lists of packages, once."""
        done = self.base / "ready"
        if done.exists():
            return
        shutil.rmtree(self.base, ignore_errors=True)
        for folder in ("etc/sources.list.d", "etc/preferences.d", "lists/partial", "cache/archives/partial"):
            (self.base / folder).mkdir(parents=True)
        # apt would rather have what the machine has than what another suite has; here every suite is as good.
        (self.base / "etc" / "sources.list").write_text("\n".join(self.sources().values()) + "\n", encoding="utf-8")
        # What looks at a cache that is not the machine's must not empty the machine's, nor this one.
        self.configuration.write_text("".join(f'{key} "{value}";\n' for key, value in {
            "Dir::Etc": self.base / "etc", "Dir::Etc::sourcelist": self.base / "etc" / "sources.list",
            "Dir::Etc::sourceparts": self.base / "etc" / "sources.list.d",
            "Dir::Etc::preferencesparts": self.base / "etc" / "preferences.d",
            "Dir::State::lists": self.base / "lists", "Dir::Cache": self.base / "cache", "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Dir::State::status": "/var/lib/dpkg/status", "Debug::NoLocking": "true", "APT::Sandbox::User": "root",
            "Acquire::Languages": "none", "Acquire::Retries": "3", "APT::Update::Post-Invoke": "",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false"}.items())
            + "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n", encoding="utf-8")
        run("apt-get", "-q", "-c", self.configuration, "update")
        done.touch()

    def programs(self, *names):
        """Fetches packages that run on this machine, and what they need that it lacks; the files."""
        self.prepare()
        release = re.search(r"^VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text(encoding="utf-8"), re.M)
        # Only from the machine's own release: libraries of another one would bring their own libc.
        suites = [line for suite, line in self.sources().items() if release and suite.split("-")[0] == release[1]]
        own = self.base / "etc" / "own.list"
        own.write_text("\n".join(suites) + "\n", encoding="utf-8")
        archives = self.base / "cache" / "programs"
        shutil.rmtree(archives, ignore_errors=True)
        (archives / "partial").mkdir(parents=True)
        backports = [f"-t={release[1]}-backports"] if f"{release[1]}-backports" in self.sources() else []
        run("apt-get", "-q", "-y", "-c", self.configuration, "-o", f"Dir::Cache::archives={archives}", "-o",
            f"Dir::Etc::sourcelist={own}", *backports, "--download-only", "--reinstall", "--no-install-recommends",
            "install", *names)
        return sorted(archives.glob("*.deb"))

    def kernel(self, *names):
        """Fetches exactly these packages; the files."""
        self.prepare()
        archives = self.base / "cache" / "single"
        archives.mkdir(exist_ok=True)
        run("apt-get", "-q", "-c", self.configuration, "download", *names, cwd=archives)
        return [file for name in names for file in archives.glob(f"{name}_*.deb")]

    def newest_kernel(self, version):
        """The newest kernel package whose version begins with `version`."""
        self.prepare()
        names = run("apt-cache", "-c", self.configuration, "pkgnames", f"linux-image-{version}").split()
        names = [name for name in names if re.fullmatch(r"linux-image-\d+(\.\d+){2}.*-cloud-amd64", name)]
        if not names:
            raise Missing(f"no kernel of version {version}")
        return max(names, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def unpack(files, target):
    """Unpacks packages on top of each other."""
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        run("dpkg-deb", "-x", file, target)
