"""Signs MCP requests for `toolcell run` with `mode = "signed"`, with Python's standard library alone.

    TOOLCELL_TOKEN=toolcell_… python3 sign.py KEY SERVER < requests > signed

reads a JSON-RPC request a line and writes it with its signature. KEY is the id that `toolcell token new` told, SERVER
the server's name in the configuration.
"""

import hashlib
import hmac
import json
import math
import os
import secrets
import sys
import time


def number(value):
    """A number as JavaScript writes it."""
    if isinstance(value, float) and not math.isfinite(value) or abs(value) > 2**53 - 1:
        raise ValueError(f"{value} is not the same number for every reader")
    if value == int(value):
        return str(int(value))
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, part = mantissa.partition(".")
    point = len(whole) + int(exponent or 0)
    digits = (whole + part).rstrip("0")
    point -= len(digits) - len(digits.lstrip("0"))
    digits = digits.lstrip("0")
    if 0 < point:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point:
        text = f"0.{'0' * -point}{digits}"
    else:
        text = f"{digits[0]}{'.' + digits[1:] if digits[1:] else ''}e{point - 1}"
    return "-" * (value < 0) + text


def canonical(value):
    """RFC 8785: members in the order of their UTF-16 code units, no spaces, numbers as JavaScript writes them."""
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(name)}:{canonical(inner)}" for name, inner in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    return json.dumps(value, ensure_ascii=False)


def sign(request, token, key, server):
    """The request with a signature in its `_meta`."""
    params = dict(request.get("params", {}))
    meta = params.pop("_meta", {})
    proof = {"key": key, "timestamp": int(time.time()), "nonce": secrets.token_urlsafe(24)}
    text = canonical({**proof, "method": request["method"], "params": params, "server": server})
    signing = hmac.digest(token.encode(), b"toolcell signing key 1", hashlib.sha256)
    proof["signature"] = hmac.new(signing, text.encode(), hashlib.sha256).hexdigest()
    return {**request, "params": {**params, "_meta": {**meta, "dev.toolcell/signature": proof}}}


if __name__ == "__main__":
    for line in sys.stdin:
        signed = sign(json.loads(line), os.environ["TOOLCELL_TOKEN"], *sys.argv[1:3])
        print(json.dumps(signed), flush=True)
