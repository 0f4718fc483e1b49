"""Packages that npm and pip fetch in cells: the public registries' own, and hostile ones of a registry on this host.

Neighbours: `registry` is that registry; `store` has unit tests. Never: lets a package's code run outside of a cell.
"""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess

import case
import fixtures
import host
import registry
import wire

NPX = ("npx", "-y", "evil")
UVX = ("uvx", "--from", "evil", "evil-server")
TOKEN = "npm-token-of-the-person"
# What says which certificates this host trusts, and where its registries are.
HOST = {name: value for name, value in os.environ.items()
        if name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT")}


class Install(case.Case):
    """What all have in common."""

    def setUp(self):
        super().setUp()
        self.data = self.directory("data")
        self.base = {**self.base, **HOST, "XDG_DATA_HOME": str(self.data)}

    def clean(self):
        """Removes what npm makes when it is asked where its registry is, and the log of what was fetched."""
        shutil.rmtree(self.home / ".npm", ignore_errors=True)
        for path in (self.home / ".local/state/toolcell").glob("audit.jsonl*"):
            path.unlink()

    def tearDown(self):
        self.clean()
        self.toolcell("store", "gc", "--unused", "0s")
        self.assertEqual(sorted(path.name for path in (self.data / "toolcell/store").iterdir()), ["lock", "names"])
        super().tearDown()

    def toolcell(self, *arguments, status=0):
        """Runs it, and gives what it printed and said."""
        if arguments[0] in ("install", "exec") and not self.full:
            arguments = (arguments[0], "--floor=no-cgroup", *arguments[1:])
        ran = subprocess.run([case.TOOLCELL, *arguments], capture_output=True, text=True, check=False, env=self.base,
                             stdin=subprocess.DEVNULL)
        self.assertEqual(ran.returncode, status, ran.stdout + ran.stderr)
        return ran.stdout, ran.stderr

    def entries(self):
        """What `store list` says."""
        return json.loads(self.toolcell("store", "list", "--json")[0])

    def call(self, tool, arguments, *command):
        """What a tool of a server in cells answers, and what was said."""
        floor = [] if self.full else ["--floor=no-cgroup"]
        with wire.Wire([case.TOOLCELL, "run", *floor, f"--audit={self.audit}", *command], self.base) as peer:
            peer.open()
            line = peer.call(1, tool, arguments)
        return case.text_of(line), str(peer.stderr)


class Public(Install):
    """Needs the registries of this host's package managers."""

    only = case.once()

    def test_npx(self):
        folder = self.directory("folder")
        (folder / "file").write_text("hello", encoding="utf-8")
        command = [f"--read={folder}", "--", "npx", "-y", "@modelcontextprotocol/server-filesystem@2026.8.31", str(folder)]
        for said in ("it is fetched now, once", ""):
            text, stderr = self.call("read_text_file", {"path": str(folder / "file")}, *command)
            self.assertEqual(text, "hello")
            self.assertIn(said, stderr)
        self.assertNotIn("fetched", stderr)
        entry, = self.entries()
        self.assertEqual(entry["version"], "2026.8.31")
        self.assertTrue(all(each["integrity"].startswith("sha512-") for each in entry["integrity"]))

    def test_uvx(self):
        for _ in range(2):
            text, _stderr = self.call("get_current_time", {"timezone": "UTC"}, "--", "uvx", "mcp-server-time==2026.10.19")
            self.assertEqual(json.loads(text)["timezone"], "UTC")
        entry, = self.entries()
        self.assertTrue(all(each["integrity"].startswith("sha256:") for each in entry["integrity"]))
        self.assertEqual(self.toolcell("store", "verify")[0].count("as it was installed"), 1)


class Hostile(Install):
    """A registry of the test's own."""

    def setUp(self):
        super().setUp()
        (self.home / "id_rsa").touch()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.registry = registry.Registry(self.home, self.listener.getsockname()[1])
        self.registry.publish_npm("1.0.0")
        self.registry.publish_pypi("1.0")
        place = self.registry.url.removeprefix("http:")
        (self.home / ".npmrc").write_text(f"registry={self.registry.url}/\n{place}/:_authToken={TOKEN}\n", encoding="utf-8")
        self.base["PIP_INDEX_URL"] = f"{self.registry.url}/simple"
        self.base["CANARY"] = "of the environment"
        self.before = self.census()

    def tearDown(self):
        self.registry.close()
        self.listener.close()
        for name in (".npmrc", "id_rsa"):
            (self.home / name).unlink()
        self.clean()
        census = self.census()
        for what in ("temporary files", "descriptors"):
            self.before[what] = census[what]
        super().tearDown()

    def tree(self):
        """Where the files of the one entry are."""
        entry, = self.entries()
        return self.data / "toolcell/store" / entry["id"] / "tree"

    def test_scripts_are_not_run(self):
        printed, said = self.toolcell("install", "npm:evil")
        self.assertIn("evil is 1.0.0", printed)
        self.assertIn("install scripts were not run: `evil`", said)
        self.assertFalse(list(self.tree().rglob("seen.json")))
        self.assertEqual(self.registry.authorized, [])
        text, _said = self.call("where", {}, "--", "npx", "-y", "evil")
        self.assertIn("node_modules/evil/server.js", text)

    def test_a_script_that_is_allowed_sees_nothing(self):
        self.toolcell("install", "--allow-scripts", "evil", "npm:evil")
        seen = json.loads(next(self.tree().rglob("seen.json")).read_text(encoding="utf-8"))
        self.assertNotIn("id_rsa", seen["home"])
        self.assertEqual(seen["home"][0], "ENOENT")
        self.assertIn(seen["port"], ("EACCES", "ECONNREFUSED"))
        self.assertEqual(seen["secret"], "")
        self.assertEqual(self.entries()[0]["scripts"], ["evil"])

    def same_for_all(self, commands):
        """Calls through each command line are answered by one program of one entry, and the first of them has fetched it."""
        places, connections = set(), set()
        for number, command in enumerate(commands):
            place, said = self.call("where", {}, "--", *command)
            self.assertEqual("it is fetched now, once" in said, number == 0, command)
            places.add(place.split()[0])
            connections.add(self.registry.connections)
        place, = places
        self.assertTrue(pathlib.Path(place).is_relative_to(self.tree()), place)
        self.assertEqual(len(connections), 1)

    def test_each_runner_of_npm(self):
        runners = (["npx", "-y"], ["npm", "exec", "-y"], ["pnpx"], ["pnpm", "dlx"], ["yarn", "dlx"], ["bunx"], ["bun", "x"],
                   ["npx", "-p", "evil"], ["bunx", "--package=evil"])
        self.same_for_all([[*runner, "evil"] for runner in runners])

    def test_each_runner_of_python(self):
        runners = (["pipx", "run", "--spec"], ["uvx", "--from"], ["uv", "tool", "run", "--from"])
        self.same_for_all([[*runner, "evil", "evil-server"] for runner in runners])

    def sees_and_reaches_nothing(self, package):
        """A script of it that is allowed by name, which tries all that it can."""
        for name in ("id_rsa", ".npmrc"):
            with open(self.home / name, "a", encoding="utf-8") as file:
                file.write("# what only the person has\n")
        port = self.listener.getsockname()[1]
        with socket.create_server(("127.0.0.2", port)) as other:
            self.toolcell("install", "--allow-scripts", "evil", package)
            for listener in (self.listener, other):
                listener.setblocking(False)
                self.assertRaises(BlockingIOError, listener.accept)
        seen = json.loads(next(self.tree().rglob("seen.json")).read_text(encoding="utf-8"))
        for word in (TOKEN, "what only the person has", self.base["CANARY"]):
            self.assertNotIn(word, seen["text"])
        own = {place: word for place, word in seen["read"].items() if not place.startswith("/proc/")}
        self.assertEqual(set(own.values()) - {"ENOENT", "EACCES"}, set(), own)
        self.assertEqual(len(seen["reached"]), 4)
        self.assertEqual({"open", "known"} & set(seen["reached"].values()), set(), seen["reached"])
        self.assertEqual(self.registry.authorized, [])
        log = self.home / ".local/state/toolcell/audit.jsonl"
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        refused = {each["object"] for record in records for each in record.get("violations", []) if each["layer"] == "network"}
        told = [f"127.0.0.2:{port}", "192.0.2.7:443", "elsewhere.example", "secret.elsewhere.example"]
        self.assertEqual([each for each in told if not any(each in place for place in refused)], [], refused)
        reached = {each["to"] for record in records for each in (record.get("traffic") or {}).get("connections", [])}
        self.assertEqual(reached, {self.registry.url.removeprefix("http://")})

    def test_a_script_that_is_allowed_reaches_the_registry_alone(self):
        self.registry.publish_npm("2.0.0", {"script.js": registry.WORM})
        self.sees_and_reaches_nothing("npm:evil")

    def test_a_build_that_is_allowed_reaches_the_index_alone(self):
        self.registry.publish_source("2.0")
        self.sees_and_reaches_nothing("pypi:evil")

    def test_a_registry_that_only_another_manager_knows(self):
        """What has the same name in the registry of pip or npm is not taken for it."""
        floor = [] if self.full else ["--floor=no-cgroup"]
        private = "https://user:word@packages.example/simple"
        settings = {"uvx": self.home / ".config/uv/uv.toml", "bunx": self.home / ".bunfig.toml"}
        settings["uvx"].parent.mkdir(parents=True)
        self.addCleanup(shutil.rmtree, self.home / ".config", ignore_errors=True)
        settings["uvx"].write_text(f'[[index]]\nname = "own"\nurl = "{private}"\n', encoding="utf-8")
        settings["bunx"].write_text(f'[install.scopes]\n"@own" = "{private}"\n', encoding="utf-8")
        for command, fetcher in ((UVX, "pip"), (["bunx", "evil"], "npm")):
            said = self.toolcell("run", *floor, f"--audit={self.audit}", "--", *command, status=1)[1]
            place = settings[command[0]]
            self.assertIn(f"error: `{place}` names the registry `https://packages.example/simple`, and {fetcher}", said)
            self.assertIn(f"hint: name it in the settings of {fetcher} too", said)
            self.assertNotIn("word", said)
            place.unlink()
        shutil.rmtree(self.home / ".config")
        self.base["UV_INDEX_URL"] = private
        said = self.toolcell("run", *floor, f"--audit={self.audit}", "--", *UVX, status=1)[1]
        self.assertIn("error: `UV_INDEX_URL` names the registry", said)
        self.assertEqual((self.registry.asked, self.entries()), ([], []))
        self.base["UV_INDEX_URL"] = self.base["PIP_INDEX_URL"] + "/"
        self.assertIn("evil.py", self.call("where", {}, "--", *UVX)[0])

    def test_a_registry_that_asks_for_a_password(self):
        """The person's stays with the person, and what to do instead is told."""
        self.registry.closed = True
        said = self.toolcell("install", "npm:evil", status=1)[1]
        self.assertIn("E401", said)
        self.assertIn("what a registry asks a password for has to be installed by hand", said)
        self.assertEqual((len(self.registry.asked) > 0, self.registry.authorized), (True, []))
        asked = len(self.registry.asked)
        self.base["PIP_INDEX_URL"] = self.base["PIP_INDEX_URL"].replace("://", "://user:word-of-the-person@")
        said = self.toolcell("install", "pypi:evil", status=1)[1]
        self.assertIn("error: the registry's address holds credentials", said)
        self.assertNotIn("word-of-the-person", said)
        self.assertEqual((len(self.registry.asked), self.entries()), (asked, []))

    def test_who_fetches_is_not_there(self):
        """Nobody fetches for toolcell but npm and pip, and who has only another one is told."""
        programs = self.directory("programs")
        (programs / "python3").symlink_to(fixtures.PYTHON)
        (programs / "bunx").symlink_to("/bin/false")
        subprocess.run([fixtures.PYTHON, "-m", "venv", "--without-pip", self.work / "bare"], check=True, env=self.base)
        floor = [] if self.full else ["--floor=no-cgroup"]
        for path, command, who in ((programs, ["bunx", "evil"], "npm"),
                                   (self.work / "bare/bin", UVX, "pip")):
            self.base["PATH"] = str(path)
            said = self.toolcell("run", *floor, f"--audit={self.audit}", "--", *command, status=1)[1]
            self.assertIn(f"hint: toolcell fetches with {who}, whichever program a command names: install it", said)
        self.assertEqual((self.registry.asked, self.entries()), ([], []))

    def test_two_projects_have_one_entry(self):
        places, connections = [], []
        for project in ("one", "two"):
            folder = self.directory(project)
            (folder / "file").write_text(project, encoding="utf-8")
            (folder / "servers.toml").write_text('servers.evil.command = ["npx", "-y", "evil@1.0.0"]\n', encoding="utf-8")
            floor = [] if self.full else ["--floor=no-cgroup"]
            command = [case.TOOLCELL, "run", *floor, f"--audit={self.audit}", f"--read={folder}", "--config=servers.toml", "evil"]
            with wire.Wire(command, self.base, cwd=folder) as peer:
                peer.open()
                places += [case.text_of(peer.call(number, "where", {})) for number in (1, 2)]
            connections.append(self.registry.connections)
        self.assertEqual((len(places), len(set(places))), (4, 1), places)
        self.assertTrue(connections[0])
        self.assertEqual(connections[1], connections[0])
        self.assertEqual(len(self.entries()), 1)
        self.assertEqual(len([path for path in self.registry.asked if path.endswith(".tgz")]), 1)

    def test_two_names_of_the_same_packages_have_one_entry(self):
        self.toolcell("install", "npm:evil")
        was = self.tree().stat()
        self.toolcell("install", "npm:evil@1.0.0", "npm:evil@1")
        self.assertEqual(sorted(self.entries()[0]["packages"]), ["npm:evil", "npm:evil@1", "npm:evil@1.0.0"])
        self.assertEqual(self.tree().stat().st_ctime_ns, was.st_ctime_ns)

    def test_what_was_fetched_stays(self):
        self.toolcell("install", "npm:evil")
        asked = len(self.registry.asked)
        self.registry.publish_npm("2.0.0")
        self.call("where", {}, "--", "npx", "-y", "evil")
        self.assertEqual(len(self.registry.asked), asked)
        self.assertEqual([entry["version"] for entry in self.entries()], ["1.0.0"])
        self.toolcell("install", "npm:evil")
        named = {entry["version"]: entry["packages"] for entry in self.entries()}
        self.assertEqual(named, {"1.0.0": [], "2.0.0": ["npm:evil"]})
        self.toolcell("store", "gc")
        self.assertEqual([entry["version"] for entry in self.entries()], ["2.0.0"])

    def locked(self, *options, status=0, command=NPX):
        """What `toolcell lock` says of the server that a runner runs."""
        floor = [] if self.full else ["--floor=no-cgroup"]
        printed, said = self.toolcell("lock", *floor, f"--audit={self.audit}", f"--lock={self.work / 'toolcell.lock'}", *options,
                                      "--", *command, status=status)
        return printed + said

    def call_locked(self, command=NPX):
        """What a call of it answers then."""
        return self.call("where", {}, f"--lock={self.work / 'toolcell.lock'}", "--", *command)

    def test_another_version_is_not_as_it_was_locked(self):
        self.locked()
        lock = (self.work / "toolcell.lock").read_text(encoding="utf-8")
        entry, = self.entries()
        integrity = entry["integrity"][0]["integrity"]
        self.assertEqual(integrity, self.registry.versions["1.0.0"]["dist"]["integrity"])
        self.assertIn(f'{{ name = "evil", version = "1.0.0", integrity = "{integrity}" }}', lock)
        self.assertIn("server.js", self.call_locked()[0])
        self.registry.publish_npm("2.0.0")
        self.toolcell("install", "npm:evil")
        text, said = self.call_locked()
        self.assertIn("the package of server `evil` is not as it was locked: `npm:evil` has another version", text)
        self.assertNotIn("2.0.0", text)
        self.assertIn("+ npm:evil is 2.0.0", said)
        self.assertIn("+ npm:evil is 2.0.0", self.locked("--check", status=118))
        self.locked("--review", "--yes")
        self.assertIn("server.js", self.call_locked()[0])

    def test_another_archive_of_the_same_version_is_not_as_it_was_locked(self):
        self.locked()
        was = self.registry.versions["1.0.0"]["dist"]["integrity"]
        self.registry.publish_npm("1.0.0", {"more.js": "// of somebody else"})
        self.toolcell("store", "gc", "--unused=0s")
        text, said = self.call_locked()
        self.assertIn("it is fetched now, once", said)
        self.assertIn("the package of server `evil` is not as it was locked: under the same version, the registry of "
                      "`npm:evil` has another archive", text)
        self.assertIn(f"- evil 1.0.0 {was}", said)
        self.assertIn(f"+ evil 1.0.0 {self.registry.versions['1.0.0']['dist']['integrity']}", said)

    def test_another_wheel_of_the_same_version_is_not_as_it_was_locked(self):
        def integrity():
            wheel, = (data for path, data in self.registry.files.items() if path.endswith(".whl"))
            return f"sha256:{hashlib.sha256(wheel).hexdigest()}"

        self.locked(command=UVX)
        was = integrity()
        lock = (self.work / "toolcell.lock").read_text(encoding="utf-8")
        self.assertIn(f'{{ name = "evil", version = "1.0", integrity = "{was}" }}', lock)
        self.assertIn("evil.py", self.call_locked(UVX)[0])
        self.registry.publish_pypi("1.0", {"purelib/more.py": "# of somebody else"})
        self.toolcell("store", "gc", "--unused=0s")
        text, said = self.call_locked(UVX)
        self.assertIn("under the same version, the registry of `pypi:evil` has another archive", text)
        self.assertIn(f"- evil 1.0 {was}", said)
        self.assertIn(f"+ evil 1.0 {integrity()}", said)

    def test_what_node_compiles_is_kept(self):
        # The host's own may be too old for it.
        self.base["PATH"] = f"{fixtures.PINNED_NODE.parent}:{self.base['PATH']}"
        self.toolcell("install", "npm:evil")
        place = self.tree() / "node_modules/.toolcell-compiled"
        self.assertTrue([path for path in place.rglob("*") if path.is_file()])
        self.assertFalse(any(path.stat().st_mode & 0o222 for path in place.rglob("*")))
        text, _said = self.call("where", {}, "--", "npx", "-y", "evil")
        self.assertEqual(text.split()[1], str(place))
        self.assertEqual(self.toolcell("store", "verify")[0].count("as it was installed"), 1)

    def test_an_archive_with_another_hash(self):
        for path in list(self.registry.files):
            if path.endswith(".tgz"):
                self.registry.files[path] = registry.tarball({"package.json": "{}"})
        said = self.toolcell("install", "npm:evil", status=1)[1]
        self.assertIn("EINTEGRITY", said)
        self.assertIn("`npm` ended with exit status", said)
        self.assertEqual(self.entries(), [])
        self.assertEqual(self.toolcell("store", "verify")[0], "the store is empty\n")

    def test_python(self):
        printed, _said = self.toolcell("install", "pypi:evil")
        self.assertIn("evil is 1.0", printed)
        program = pathlib.Path(printed.splitlines()[1].strip())
        self.assertEqual(program.name, "evil-server")
        self.assertFalse(program.stat().st_mode & 0o222)
        compiled = {path: path.stat() for path in self.tree().rglob("*.pyc")}
        self.assertIn("evil", {path.name.split(".")[0] for path in compiled})
        self.assertFalse(any(seen.st_mode & 0o222 for seen in compiled.values()))
        ran = self.toolcell("exec", "--", "uvx", "--from", "evil", "evil-server")
        self.assertEqual(ran[0].split()[0], "here")
        self.assertEqual({path: path.stat().st_mtime_ns for path in self.tree().rglob("*.pyc")},
                         {path: seen.st_mtime_ns for path, seen in compiled.items()})
        source = next(self.tree().rglob("evil.py"))
        source.chmod(0o644)
        source.write_text("def main():\n    print('other')\n", encoding="utf-8")
        told = self.toolcell("store", "verify", status=118)[0]
        self.assertIn("differs in", told)
        self.assertIn("hint: install it again", told)
        for spoilt in (source, self.tree().parent / "entry.json"):
            spoilt.write_text("{", encoding="utf-8")
            self.toolcell("install", "pypi:evil")
            self.assertEqual(self.toolcell("store", "verify")[0].count("as it was installed"), 1)

    def test_what_a_page_says_beside_its_addresses(self):
        for links in ('yanked="https://a.example/x.whl"', '></a><a href="http://127.0.0.2:80/x.whl"',
                      '></a><a href="http://localhost/x.whl"', '></a><a href="https://files.example/x.whl"'):
            self.registry.withdrawn += f" data-{links}" if links.startswith("yanked") else links
        self.toolcell("install", "pypi:evil==1.0")
        entry, = self.entries()
        self.assertEqual(sorted(entry["reached"]), sorted([self.registry.url.removeprefix("http://"), "files.example:443"]))

    def test_a_package_that_would_choose_what_is_shown(self):
        self.registry.publish_pypi("2.0", {"data/pyvenv.cfg": f"home = {self.home}\n"})
        said = self.toolcell("install", "pypi:evil", status=1)[1]
        self.assertIn("a package brings settings of its own for the environment (`pyvenv.cfg`)", said)
        self.assertEqual(self.entries(), [])

    def test_a_package_that_another_names_by_its_address(self):
        self.registry.files["/other.tgz"] = registry.tarball({"package.json": '{"name": "other", "version": "1.0.0"}'})
        address = f"{self.registry.url}/other.tgz"
        self.registry.publish_npm("2.0.0", dependencies={"other": address})
        said = self.toolcell("install", "npm:evil", status=1)[1]
        self.assertIn(f"`other` does not come from the registry, but from `{address}`", said)
        self.assertEqual(self.entries(), [])

    def test_scripts_of_all(self):
        for package, name in (("pypi:evil", ":all:"), ("pypi:evil", "a,:all:"), ("npm:evil", "evil@1")):
            said = self.toolcell("install", "--allow-scripts", name, package, status=2)[1]
            self.assertIn(f"`{name}` of `--allow-scripts` is no name of a package", said)

    def test_what_a_script_leaves_is_looked_at_before_anything_starts(self):
        self.base["PATH"] = f"{fixtures.PINNED_NODE.parent}:{self.base['PATH']}"
        script = f"require('fs').symlinkSync({json.dumps(str(self.home))}, '../x')"
        self.registry.publish_npm("2.0.0", {"script.js": script})
        said = self.toolcell("install", "--allow-scripts", "evil", "npm:evil", status=1)[1]
        self.assertIn("outside of the package", said)
        self.assertFalse(list((self.data / "toolcell/store").rglob(".toolcell-compiled")))

    def test_what_lies_beside_the_packages_is_not_kept(self):
        self.registry.publish_npm("2.0.0", {"script.js": "require('fs').writeFileSync('../../pyvenv.cfg', 'home = /')"})
        self.toolcell("install", "--allow-scripts", "evil", "npm:evil")
        self.assertEqual([path.name for path in self.tree().iterdir()], ["node_modules"])

    def test_what_a_program_leaves_instead_of_compiled_code(self):
        self.base["PATH"] = f"{fixtures.PINNED_NODE.parent}:{self.base['PATH']}"
        link = "#!/usr/bin/env node\nrequire('fs').symlinkSync('/', process.env.NODE_COMPILE_CACHE + '/x')\n"
        self.registry.publish_npm("2.0.0", {"server.js": link})
        self.toolcell("install", "npm:evil")
        self.assertFalse(list(self.tree().rglob(".toolcell-compiled")))
        self.assertEqual(self.tree().joinpath("node_modules").stat().st_mode & 0o222, 0)
        self.assertEqual(self.toolcell("store", "verify")[0].count("as it was installed"), 1)

    def test_what_a_session_runs_from_is_not_collected(self):
        self.toolcell("install", "npm:evil")
        floor = [] if self.full else ["--floor=no-cgroup"]
        with wire.Wire([case.TOOLCELL, "run", *floor, f"--audit={self.audit}", "--", "npx", "evil"], self.base) as peer:
            peer.open()
            self.assertIn("1 stay: servers run from them", self.toolcell("store", "gc", "--unused=0s")[0])
            self.assertIn("server.js", case.text_of(peer.call(1, "where", {})))
        self.assertIn("1 removed", self.toolcell("store", "gc", "--unused=0s")[0])

    def test_what_another_fetches_meanwhile(self):
        self.toolcell("install", "npm:evil")
        asked = len(self.registry.asked)
        store = self.data / "toolcell/store"
        name, = (store / "names").iterdir()
        aside = self.work / "aside"
        floor = [] if self.full else ["--floor=no-cgroup"]
        with open(store / "lock", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            name.rename(aside)
            with wire.Wire([case.TOOLCELL, "run", *floor, f"--audit={self.audit}", "--", "npx", "evil"], self.base) as peer:
                host.until(lambda: "this one waits for it" in str(peer.stderr), 10)
                aside.rename(name)
                fcntl.flock(lock, fcntl.LOCK_UN)
                peer.open()
                self.assertIn("server.js", case.text_of(peer.call(1, "where", {})))
        self.assertEqual(len(self.registry.asked), asked)

    def test_what_is_not_there(self):
        for package, word in (("npm:none", "E404"), ("pypi:none", "404")):
            said = self.toolcell("install", package, status=1)[1]
            self.assertIn(word, said)
        said = self.toolcell("exec", "--", "npx", "evil", status=127)[1]
        self.assertIn("hint: toolcell install npm:evil", said)
        self.toolcell("install", "npm:evil")
        said = self.toolcell("exec", "--", "npx", "-p", "evil", "other", status=127)[1]
        self.assertIn("`npm:evil` has no program `other`", said)

    def test_a_tool_may_not_change_the_store(self):
        self.toolcell("install", "npm:evil")
        floor = [] if self.full else ["--floor=no-cgroup"]
        said = self.toolcell("exec", f"--write={self.work}", "--", "npx", "evil", status=120)[1]
        self.assertIn("what toolcell has installed lies in it", said)
        store = self.data / "toolcell/store"
        script = f"touch {self.data}/beside; ls -A {store}; touch {store}/x; mv {store.parent} {self.data}/moved"
        ran = subprocess.run([case.TOOLCELL, "exec", *floor, f"--write={self.work}", "--", "/bin/sh", "-c", script],
                             capture_output=True, text=True, check=False, env=self.base, stdin=subprocess.DEVNULL)
        (self.data / "beside").unlink()
        self.assertEqual(ran.stdout, "")
        self.assertEqual(sorted(path.name for path in store.iterdir()), sorted(["lock", "names", self.entries()[0]["id"]]))
