// Signs MCP requests for `toolcell run` with `mode = "signed"`, with what Node.js has alone.
//
//     TOOLCELL_TOKEN=toolcell_… node --experimental-strip-types sign.ts KEY SERVER < requests > signed
//
// reads a JSON-RPC request a line and writes it with its signature. KEY is the id that `toolcell token new` told, SERVER
// the server's name in the configuration.

import { createHmac, randomBytes } from "node:crypto";
import { argv, env, stdin } from "node:process";

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
type Request = { method: string; params?: { [name: string]: Json } };

/** RFC 8785. JavaScript sorts by UTF-16 code units, and writes strings and numbers, as the RFC has it. */
function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const members = Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name]!)}`);
    return `{${members.join(",")}}`;
  }
  if (typeof value === "number" && !(Math.abs(value) <= Number.MAX_SAFE_INTEGER)) {
    throw new RangeError(`${value} is not the same number for every reader`);
  }
  return JSON.stringify(value);
}

/** The request with a signature in its `_meta`. */
export function sign<R extends Request>(request: R, token: string, key: string, server: string) {
  const { _meta: meta, ...params } = request.params ?? {};
  const proof = { key, timestamp: Math.floor(Date.now() / 1000), nonce: randomBytes(24).toString("base64url") };
  const text = canonical({ ...proof, method: request.method, params, server });
  const signing = createHmac("sha256", token).update("toolcell signing key 1").digest();
  const signature = createHmac("sha256", signing).update(text).digest("hex");
  const signed = { ...(meta as object), "dev.toolcell/signature": { ...proof, signature } };
  return { ...request, params: { ...params, _meta: signed } };
}

if (argv[1] === import.meta.filename) {
  // Not by node:readline, for which U+2028 ends a line, too.
  let rest = "";
  for await (const chunk of stdin.setEncoding("utf8")) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      console.log(JSON.stringify(sign(JSON.parse(line), env["TOOLCELL_TOKEN"]!, argv[2]!, argv[3]!)));
    }
  }
}
