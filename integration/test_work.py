"""Ordinary work in a writable directory goes on: git, npm and cargo are content with the names that stand in it for what
the host would run.

Neighbours: `tests/it/cell/traps.rs` has what is refused there.
Never: reaches the network.
"""

import os
import pathlib
import pwd
import shutil
import subprocess
import tarfile

import case
import fixtures


class Work(case.Case):
    """Commands of `toolcell exec` in a directory of their own."""

    def exec_line(self, *words):
        """The command line of `words` in a cell, at the strongest floor the host has."""
        floor = () if self.full else ("--floor=no-cgroup",)
        return [case.TOOLCELL, "exec", *floor, *map(str, words)]

    def work_in(self, directory, *words, env=None):
        """What a command that must succeed in `directory` said on both channels."""
        ended = subprocess.run(self.exec_line(*words), cwd=directory, env={**self.base, **(env or {})},
                               stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        return ended.stdout + ended.stderr

    def names(self, directory):
        """The names in a directory, sorted."""
        return sorted(os.listdir(directory))


class Git(Work):
    """Commits."""

    def git(self, directory, *words):
        """git without a cell."""
        env = {**self.base, "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(["git", *words], cwd=directory, env=env, check=True, capture_output=True, text=True)
        return done.stdout

    def repository(self):
        """One commit, and a change."""
        top = self.directory("repo")
        for words in (["init", "-q", "-b", "main"], ["config", "user.name", "A"], ["config", "user.email", "a@b"]):
            self.git(top, *words)
        (top / "a.txt").write_text("one\n", encoding="utf-8")
        (top / ".github").mkdir()
        (top / ".github" / "ci.yml").write_text("on: push\n", encoding="utf-8")
        self.git(top, "add", ".")
        self.git(top, "commit", "-q", "-m", "first")
        (top / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
        return top

    def test_commit(self):
        for options in (["--profile=git-write"], None):
            with self.subTest(options=options):
                top = self.repository()
                options = options or [f"--write={top}"]
                before = self.names(top / ".git")
                steps = ("git add -A", "git commit -q -m second", "git checkout -q -b side", "git mv a.txt b.txt",
                         "git commit -q -m third", "git checkout -q main", "git merge -q side", "git gc -q",
                         "git fsck --no-progress", "git status --porcelain")
                said = self.work_in(top, *options, "--", "sh", "-e", "-c", "\n".join(steps))
                self.assertEqual(said, "")
                self.assertEqual(self.git(top, "log", "--format=%s").split(), ["third", "second", "first"])
                self.assertEqual(self.git(top, "status", "--porcelain"), "")
                self.assertEqual(self.names(top), [".git", ".github", "b.txt"])
                self.assertEqual(self.names(top / ".git"), sorted([*before, "ORIG_HEAD", "packed-refs"]))

    def test_on_the_host_meanwhile(self):
        top = self.repository()
        self.git(top, "commit", "-q", "-a", "-m", "second")
        line = self.exec_line(f"--write={top}", "--", "cat")
        with subprocess.Popen(line, cwd=top, env=self.base, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cell:
            cell.stdin.write(b"x")
            cell.stdin.flush()
            cell.stdout.read(1)
            self.assertIn(".vscode", self.names(top))
            self.assertEqual(self.git(top, "status", "--porcelain"), "")
            self.git(top, "commit", "-q", "--allow-empty", "-m", "third")
            cell.stdin.close()
        self.assertEqual(self.names(top), [".git", ".github", "a.txt"])


class Npm(Work):
    """Packages."""

    def test_install(self):
        npm = shutil.which("npm", path=fixtures.search_path())
        self.need(npm and fixtures.open_to_all(npm), "no npm that every user can start")
        top = self.directory("app")
        (top / "package.json").write_text('{"name": "app", "dependencies": {"part": "file:part.tgz"}}', encoding="utf-8")
        part = self.temp / "package"
        part.mkdir()
        (part / "package.json").write_text('{"name": "part", "version": "1.0.0"}', encoding="utf-8")
        (part / "index.js").write_text("module.exports = 42\n", encoding="utf-8")
        with tarfile.open(top / "part.tgz", "w:gz") as archive:
            archive.add(part, "package")
        shutil.rmtree(part)
        self.work_in(top, "--profile=workspace", "--", "npm", "install", "--offline", "--no-audit", "--no-fund",
                     "--no-update-notifier")
        self.assertEqual(self.names(top), ["node_modules", "package-lock.json", "package.json", "part.tgz"])
        said = self.work_in(top, "--profile=workspace", "--", "node", "-p", "require('part')")
        self.assertEqual(said, "42\n")


class Cargo(Work):
    """Crates."""

    # A toolchain usually lies in the home directory of who builds toolcell, which other users cannot enter.
    only = "root"

    def test_build(self):
        home = pwd.getpwuid(os.geteuid()).pw_dir
        path = os.pathsep.join([str(pathlib.Path(home, ".cargo", "bin")), fixtures.search_path()])
        self.need(shutil.which("cargo", path=path), "no cargo")
        top = self.directory("crate")
        (top / "src").mkdir()
        (top / "Cargo.toml").write_text('[package]\nname = "tiny"\nversion = "0.1.0"\nedition = "2021"\n', encoding="utf-8")
        (top / "src" / "main.rs").write_text('fn main() {\n    println!("built");\n}\n', encoding="utf-8")
        self.work_in(top, "--profile=workspace", "--", "cargo", "build", "--offline", env={"HOME": home, "PATH": path})
        self.assertEqual(self.names(top), ["Cargo.lock", "Cargo.toml", "src", "target"])
        ended = subprocess.run([top / "target" / "debug" / "tiny"], capture_output=True, text=True, check=True)
        self.assertEqual(ended.stdout, "built\n")
