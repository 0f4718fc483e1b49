// Drives the TypeScript SDK, 1.x or 2.x, and prints what its user would have got.
//
// Neighbours: `test_sdk` runs it, bare and in cells, and compares what it prints; `sdk.py` does the same for Python.
// Never: knows which of the two it is talking to.
//
// The first argument is the directory of packages, the second is JSON: `sdk` (1 or 2), `command`, `env`, `mode` (`legacy`,
// `auto` or a modern revision) and `steps`.

import { createRequire } from "node:module";

const given = JSON.parse(process.argv[3]);
const require = createRequire(`${process.argv[2]}/package.json`);
const second = given.sdk === 2;
const { Client } = require(second ? "@modelcontextprotocol/client" : "@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require(
  second ? "@modelcontextprotocol/client/stdio" : "@modelcontextprotocol/sdk/client/stdio.js");
const types = second ? null : require("@modelcontextprotocol/sdk/types.js");

// What the client says when it is asked.
const ANSWERS = {
  "elicitation/create": [types?.ElicitRequestSchema, { action: "accept", content: { name: "Ada", ok: true, color: "blue" } }],
  "sampling/createMessage": [types?.CreateMessageRequestSchema, {
    role: "assistant", model: "none", stopReason: "endTurn", content: { type: "text", text: "Paris" } }],
  "roots/list": [types?.ListRootsRequestSchema, { roots: [{ uri: "file:///srv", name: "srv" }] }],
};

const modes = { legacy: "legacy", auto: "auto" };
const capabilities = { elicitation: {}, sampling: {}, ...(given.roots ? { roots: {} } : {}) };
const client = new Client({ name: "outside", version: "1.0" }, {
  capabilities, ...(second ? { versionNegotiation: { mode: modes[given.mode] ?? { pin: given.mode } } } : {}) });
for (const [method, [schema, answer]] of Object.entries(ANSWERS)) {
  if (method !== "roots/list" || given.roots) {
    client.setRequestHandler(schema ?? method, async () => answer);
  }
}
const logged = [];
client.setNotificationHandler(
  types?.LoggingMessageNotificationSchema ?? "notifications/message", (note) => { logged.push(note.params); });

const call = (name, args, options) => second
  ? client.callTool({ name, arguments: args }, options)
  : client.callTool({ name, arguments: args }, undefined, options);

const STEPS = {
  tools: () => client.listTools(),
  prompts: () => client.listPrompts(),
  resources: () => client.listResources(),
  templates: () => client.listResourceTemplates(),
  call,
  async progress(name, args) {
    const heard = [];
    const result = await call(name, args, { onprogress: (progress) => heard.push(progress) });
    return { result, progress: heard };
  },
  prompt: (name, args) => client.getPrompt({ name, arguments: args }),
  resource: (uri) => client.readResource({ uri }),
  complete: (name, argument, value) => client.complete({
    ref: { type: "ref/prompt", name }, argument: { name: argument, value } }),
  level: (level) => client.setLoggingLevel(level),
  log: () => [...logged],
  // A call that the client gives up as soon as it runs.
  async abandon(name, args) {
    const controller = new AbortController();
    const options = { signal: controller.signal, onprogress: () => controller.abort("enough") };
    return call(name, args, options).then(() => "answered", () => "gave up");
  },
  parallel: (steps) => Promise.all(steps.map(step)),
};

async function step([name, ...rest]) {
  try {
    return await STEPS[name](...rest);
  } catch (error) {
    if (typeof error.code !== "number") throw error;
    return { error: { code: error.code, message: error.message, data: error.data } };
  }
}

await client.connect(new StdioClientTransport({ command: given.command[0], args: given.command.slice(1), env: given.env }));
const results = [["open", {
  server: client.getServerVersion(), capabilities: client.getServerCapabilities(), instructions: client.getInstructions(),
  era: second ? client.getProtocolEra?.() ?? null : "legacy" }]];
for (const each of given.steps) {
  results.push([each.slice(0, 2).join(" "), await step(each)]);
}
console.log(JSON.stringify(results));
await client.close();
