"""Secrets that `age` decrypts, with the real program and real keys.

Neighbours: `it::session::secrets` and `it::secrets` have every other source. Never: uses a key of the host.
"""

import hashlib
import json
import os
import subprocess

import case
import fixtures
import wire

SECRET = "s3cr3t-that-age-keeps"


class Secrets(case.Case):
    """One configuration each."""

    def setUp(self):
        super().setUp()
        # The keeper finds the program as a shell would.
        self.base["PATH"] = f"{fixtures.AGE}:{self.base['PATH']}"
        self.keys = self.directory("keys")
        self.key = self.keys / "key"
        self.file = self.keys / "secret.age"
        subprocess.run([fixtures.AGE / "age-keygen", "-o", self.key], check=True, stderr=subprocess.DEVNULL)
        os.chmod(self.key, 0o600)
        recipient = subprocess.run([fixtures.AGE / "age-keygen", "-y", self.key], check=True, capture_output=True, text=True)
        subprocess.run([fixtures.AGE / "age", "-r", recipient.stdout.strip(), "-o", self.file], check=True, text=True,
                       input=SECRET + "\n")
        command = json.dumps(fixtures.tiny().command)
        self.config = self.directory("configuration") / "servers.toml"
        self.config.write_text(
            f'[servers.tiny]\ncommand = {command}\nvalidate = "off"\n[secrets.one]\n'
            f'from = {{ age = "{self.file}", identity = "{self.key}" }}\nto = ["tiny/digest"]\n'
            'into = { env = "ONE" }\nmax-age = "30d"\n', encoding="utf-8")

    def answer(self):
        """What the tool that gets the secret answers; and all that was recorded."""
        floor = [] if self.full else ["--floor=no-cgroup"]
        with wire.Wire([case.TOOLCELL, "run", *floor, f"--audit={self.audit}", f"--config={self.config}", "tiny"],
                       self.base) as peer:
            peer.open()
            line = peer.call(1, "digest", {"name": "ONE"})
            said = peer.stderr
        recorded = self.audit.read_text(encoding="utf-8")
        for text in (line.decode(), str(said), recorded):
            self.assertNotIn(SECRET, text)
        return json.loads(line), recorded

    def check(self):
        """What `secrets check` says, and its status."""
        ran = subprocess.run([case.TOOLCELL, "secrets", "check", "--json", f"--config={self.config}"],
                             capture_output=True, text=True, check=False, env=self.base, stdin=subprocess.DEVNULL)
        self.assertNotIn(SECRET, ran.stdout + ran.stderr)
        return json.loads(ran.stdout)["secrets"][0], ran.returncode

    def test_decrypts(self):
        answer, recorded = self.answer()
        digest = hashlib.sha256(SECRET.encode()).hexdigest()
        self.assertEqual(answer["result"]["content"][0]["text"], f"{digest} [redacted:one]")
        self.assertIn('"place":"stderr"', recorded)
        seen, status = self.check()
        self.assertEqual((seen["state"], seen["source"], status), ("fresh", f"age file `{self.file}`", 0))

    def test_overdue(self):
        old = self.file.stat().st_mtime - 31 * 86400
        os.utime(self.file, (old, old))
        answer, _ = self.answer()
        self.assertIn("it is 31d old, and `max-age` is 30d", case.text_of(json.dumps(answer).encode()))
        self.assertEqual(self.check()[1], 1)

    def test_wrong_key(self):
        self.key.unlink()
        subprocess.run([fixtures.AGE / "age-keygen", "-o", self.key], check=True, stderr=subprocess.DEVNULL)
        os.chmod(self.key, 0o600)
        answer, _ = self.answer()
        told = case.text_of(json.dumps(answer).encode())
        self.assertIn("`age` failed: exit status: 1: it said: ", told)
        self.assertIn(f"hint: try `age -d -i {self.key} {self.file}`", told)
        self.assertEqual(self.check()[0]["state"], "unreadable")

    def test_key_that_others_can_read(self):
        os.chmod(self.key, 0o644)
        answer, _ = self.answer()
        self.assertIn("others can read it", case.text_of(json.dumps(answer).encode()))
