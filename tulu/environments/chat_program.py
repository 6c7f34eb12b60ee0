"""What the package `verifiers` starts beside a task, in the process of the episode: a chat program, and the server it speaks to.

The package's own chat program (`null`) is a script that `uv` installs and starts for every episode. This one asks and answers the
same way, in the event loop that is there already: the model until it calls no tool, and each tool where the task serves it.
"""

import asyncio
import contextlib
import json
from typing import Any

from tulu.data.tasksets import package


def intercepting_server(client: Any, state_secrets: tuple[str, ...]) -> Any:
    """The package's server between a program and a model, whose model is `client`."""
    server = package("interception").InterceptionServer(state_service_secrets=state_secrets)
    server._client = lambda config: client
    return server


def chat_harness(config: Any, client: Any) -> Any:
    """The package's chat program of this configuration, run in this process."""
    return _harness_class()(config, client)


def _harness_class() -> Any:
    null = package("harnesses.null").NullHarness
    result = package("runtimes").ProgramResult
    mcp = package("harnesses.utils.mcp")
    to_wire = package("dialects.chat").message_to_wire

    class ChatHarness(null):  # type: ignore[misc, valid-type]
        """Turns of the policy and calls of its tools, until a turn calls none."""

        SUPPORTS_TOOL_INTERCEPTION = False

        def __init__(self, config: Any, client: Any = None) -> None:
            super().__init__(config)
            self._client = client

        async def setup(self, runtime: Any) -> None:
            """Nothing is installed."""

        async def launch(
            self,
            ctx: Any,
            trace: Any,
            runtime: Any,
            endpoint: str,
            secret: str,
            mcp_urls: dict[str, str],
            data: Any,
            tool_interception_url: str | None = None,
        ) -> Any:
            """Hold a conversation to its end."""
            system, prompt = self.resolve_prompt(data)
            messages = [] if not system else [{"role": "system", "content": system}]
            if isinstance(prompt, str):
                messages.append({"role": "user", "content": prompt})
            elif prompt is not None:
                messages += [to_wire(message) for message in prompt]
            async with contextlib.AsyncExitStack() as stack:
                servers = {name: {"url": url, "timeout": self.config.tool_timeout} for name, url in mcp_urls.items()}
                tools, dispatch, connections = await mcp.connect_mcp({"mcpServers": servers}, stack)
                http = await stack.enter_async_context(_http())
                body = {"model": ctx.model, "messages": messages, **({"tools": tools} if tools else {})}
                while True:
                    answer = await http.post(
                        f"{endpoint}/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"}
                    )
                    if answer.status_code != 200:
                        if trace.stop_condition is None and not self._client.refused:
                            raise RuntimeError(f"the model's answer is {answer.status_code}: {answer.text[:500]}")
                        return result(0, "", "")
                    message = answer.json()["choices"][0]["message"]
                    messages.append(message)
                    calls = message.get("tool_calls") or []
                    if not calls:
                        return result(0, "", "")
                    results = await asyncio.gather(*(_called(mcp, connections, dispatch, call) for call in calls))
                    for call, content in zip(calls, results, strict=True):
                        name = call["function"]["name"]
                        messages.append({"role": "tool", "tool_call_id": call["id"], "name": name, "content": content})

    return ChatHarness


def _http() -> Any:
    import httpx2

    return httpx2.AsyncClient(timeout=None, trust_env=False)


async def _called(mcp: Any, connections: Any, dispatch: Any, call: Any) -> Any:
    """What a tool answers; what goes wrong with it is an answer too, which the policy may do better after."""
    name = call["function"]["name"]
    if name not in dispatch:
        return f"error: no tool {name}; the tools are {', '.join(dispatch) or 'none'}"
    try:
        return await mcp.call_mcp(connections, dispatch, name, json.loads(call["function"]["arguments"] or "{}"))
    # A tool may raise anything.
    except Exception as fault:  # noqa: BLE001
        return f"error: {type(fault).__name__}: {fault}"
