"""Requests that the documented examples sign, in Python and in TypeScript, before `mode = "signed"`.

Neighbours: `docs/examples` has the signers; `it::session::signed` attacks what they sign. Never: signs by itself.
"""

import json
import os
import pathlib
import subprocess

import case
import fixtures
import wire

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "docs" / "examples"
NODE = [str(fixtures.PINNED_NODE), "--experimental-strip-types", "--no-warnings"]
SIGNERS = {
    "python": [fixtures.PYTHON, "-B", str(EXAMPLES / "sign.py")],
    "typescript": [*NODE, str(EXAMPLES / "sign.ts")],
}

# What a reader, a sorter or a printer of JSON could do differently from another.
ARGUMENTS = {
    "text": "\u0001 \u007f \u2028 \"quoted\" \\ / \r\n\t\b\f é \U0001f600",
    "floats": [0.1, 1e-7, 5e-324, -0.0, 123456789.125, 0.000001234, 1e15, 1e-6, 333333333.3333333, 1424953923781206.2, 1.5e-10, 4.5],
    "whole": [0, -7, 2**53 - 1, 1 - 2**53],
    "\ufb33": 1, "\U0001f600": 2, "€": {"b": [], "a": {}}, "": [None, True, False], "10": 1, "9": 2,
}


class Signed(case.Case):
    """Each example alone."""

    def start(self):
        """A configuration with a key: the session, the key's id and the token."""
        home = self.directory("signed")
        config = home / "servers.toml"
        command = json.dumps(fixtures.tiny().command)
        config.write_text(f'[servers.tiny]\ncommand = {command}\n[auth]\nmode = "signed"\n[identities.alice]\n'
                          'roles = ["all"]\n[roles.all]\nallow = ["tiny/*"]\n', encoding="utf-8")
        made = subprocess.run([case.TOOLCELL, "token", "new", "alice", f"--config={config}"], capture_output=True,
                              text=True, check=True, env=self.base)
        token, key = made.stdout.strip(), made.stderr.split("`")[1]
        self.assertNotIn(token[9:], (home / "tokens.toml").read_text(encoding="utf-8"))
        floor = [] if self.full else ["--floor=no-cgroup"]
        peer = wire.Wire([case.TOOLCELL, "run", *floor, f"--audit={self.audit}", f"--config={config}", "tiny"],
                         {**self.base, "XDG_STATE_HOME": str(home)})
        return peer, key, token

    def sign(self, signer, key, token, *requests):
        """The requests as the example signs them: lines."""
        lines = "".join(json.dumps(request, ensure_ascii=False) + "\n" for request in requests)
        ran = subprocess.run([*SIGNERS[signer], key, "tiny"], input=lines, capture_output=True, text=True, check=True,
                             encoding="utf-8", env={**os.environ, "TOOLCELL_TOKEN": token})
        return [line.encode() + b"\n" for line in ran.stdout.split("\n")[:-1]]

    def works(self, signer):
        """What the example signs is let in, once."""
        peer, key, token = self.start()
        call = {"name": "echo", "arguments": {"text": ARGUMENTS}}
        hello, line = self.sign(
            signer, key, token,
            {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
                "protocolVersion": wire.LEGACY, "capabilities": {}, "clientInfo": wire.CLIENT}},
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call})
        with peer:
            peer.send_raw(hello)
            self.assertIn("result", json.loads(peer.answer(0)))
            peer.notify("notifications/initialized")
            peer.send_raw(line)
            answer = peer.answer(1)
            self.assertEqual(json.loads(answer)["result"]["content"][0]["text"], ARGUMENTS)
            again = line.replace(b'"id": 1', b'"id": 2').replace(b'"id":1', b'"id":2')
            peer.send_raw(again)
            self.assertIn("its nonce was here before", case.text_of(peer.answer(2)))
        self.assertNotIn("dev.toolcell", self.audit.read_text(encoding="utf-8"))

    def test_python(self):
        self.works("python")

    def test_typescript(self):
        self.need(fixtures.PINNED_NODE.exists(), "the pinned node of the fixtures")
        self.works("typescript")
