"""Drives the Python SDK, 1.x or 2.x, whichever the interpreter has, and prints what its user would have got.

Neighbours: `test_sdk` and `test_http` run it, bare and in cells, and compare what it prints.
Never: knows which of the two it is talking to.

The one argument is JSON: `command` and `env`, or `url`; `mode` (`legacy`, `auto` or a modern revision) and `steps`.
"""

import asyncio
import contextlib
import json
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

try:
    from mcp import Client
except ImportError:
    Client = None


def plain(value):
    """A value of the SDK as JSON."""
    return value.model_dump(mode="json", by_alias=True, exclude_none=True) if hasattr(value, "model_dump") else value


class Session:
    """What the steps call, over either SDK."""

    def __init__(self, session, types, logged):
        self.session = session
        self.types = types
        self.logged = logged

    async def tools(self):
        """All tools."""
        return await self.session.list_tools()

    async def prompts(self):
        """All prompts."""
        return await self.session.list_prompts()

    async def resources(self):
        """All resources."""
        return await self.session.list_resources()

    async def templates(self):
        """All templates."""
        return await self.session.list_resource_templates()

    async def call(self, name, arguments):
        """One call."""
        return await self.session.call_tool(name, arguments)

    async def progress(self, name, arguments):
        """One call with its progress."""
        heard = []

        async def listen(progress, total, message):
            heard.append([progress, total, message])
        result = await self.session.call_tool(name, arguments, progress_callback=listen)
        return {"result": plain(result), "progress": heard}

    async def prompt(self, name, arguments):
        """One prompt."""
        return await self.session.get_prompt(name, arguments)

    async def resource(self, uri):
        """One resource."""
        return await self.session.read_resource(uri)

    async def complete(self, prompt, name, value):
        """One completion of a prompt's argument."""
        ref = self.types.PromptReference(type="ref/prompt", name=prompt)
        return await self.session.complete(ref, {"name": name, "value": value})

    async def level(self, level):
        """The log level of a legacy session."""
        return await self.session.set_logging_level(level)

    async def log(self):
        """Log messages so far."""
        return list(self.logged)

    async def abandon(self, name, arguments, seconds):
        """A call that the client gives up."""
        try:
            await asyncio.wait_for(self.session.call_tool(name, arguments), seconds)
        except TimeoutError:
            return "gave up"
        return "answered"

    async def parallel(self, steps):
        """Several steps at once."""
        return await asyncio.gather(*(self.step(each) for each in steps))

    async def step(self, step):
        """One step; an error of the protocol is a result like any other."""
        try:
            return plain(await getattr(self, step[0])(*step[1:]))
        except Exception as error:
            inner = getattr(error, "error", None)
            if inner is None:
                raise
            return {"error": plain(inner)}


@contextlib.asynccontextmanager
async def connect(given, logged):
    """A session in the era that is asked for."""
    url = given.get("url")
    parameters = url or StdioServerParameters(command=given["command"][0], args=given["command"][1:], env=given["env"])

    async def log(params):
        logged.append(plain(params))
    if Client is None:
        from mcp import types
        from mcp.client.streamable_http import streamablehttp_client
        async with (streamablehttp_client if url else stdio_client)(parameters) as (reading, writing, *_):
            async with ClientSession(reading, writing, logging_callback=log) as session:
                opened = await session.initialize()
                yield Session(session, types, logged), plain(opened)
    else:
        import mcp_types as types
        async with Client(parameters, mode=given["mode"], logging_callback=log) as client:
            opened = {"version": client.protocol_version, "server": plain(client.server_info),
                      "capabilities": plain(client.server_capabilities), "instructions": client.instructions}
            yield Session(client, types, logged), opened


async def main():
    """Runs the steps."""
    given = json.loads(sys.argv[1])
    async with connect(given, []) as (session, opened):
        results = [["open", opened]]
        for step in given["steps"]:
            results.append([" ".join(map(str, step[:2])), await session.step(step)])
    print(json.dumps(results, ensure_ascii=False))


asyncio.run(main())
