"""OpenEnv: an environment that another program serves over a WebSocket, as `openenv:ws://HOST:PORT/ws`.

The server's action is the one tool, `step`, with the schema that `GET /schema` gives. Each episode has a connection of its
own. Messages are {"type": "reset" | "step", "data": ...} and answers {"type": "observation", "data": {observation, reward,
done}} or {"type": "error", "data": {message}} (openenv 0.10, core/env_server/types.py).
"""

import json
from collections.abc import Mapping
from typing import Any

from tulu.errors import RecipeError

_LARGEST = 16 << 20
"""Bytes of one message."""


class OpenEnv:
    """One episode with a server; `URL` is that of its WebSocket."""

    URL = ""

    def __init__(self) -> None:
        self._connection: Any = None
        self._rewards: list[float] = []
        self._done = False

    def reset(self, **row: Any) -> str:
        """Begin an episode, with the row's `seed` if it has one; the first observation is what the policy reads."""
        from websockets.sync.client import connect

        # The parent kills this process where the server says nothing.
        self._connection = connect(self.URL, max_size=_LARGEST, open_timeout=None, ping_interval=None)
        return self._ask("reset", {key: row[key] for key in ("seed",) if row.get(key) is not None})

    def step(self, **action: Any) -> str:
        """Act in the environment, and read what it shows then."""
        if self._done:
            return "error: the episode is over"
        return self._ask("step", action)

    def get_reward(self) -> float | None:
        """The sum of the rewards that the server gave; None where it gave none."""
        return sum(self._rewards) if self._rewards else None

    def _ask(self, kind: str, data: Mapping[str, Any]) -> str:
        self._connection.send(json.dumps({"type": kind, "data": data}))
        answer = json.loads(self._connection.recv())
        content = answer.get("data") or {}
        if answer.get("type") != "observation":
            raise RuntimeError(f"the server answers {kind} with: {content.get('message') or answer}")
        if content.get("reward") is not None:
            self._rewards.append(float(content["reward"]))
        self._done = bool(content.get("done"))
        return _shown(content.get("observation"))

    @classmethod
    def _schemas(cls) -> list[dict[str, Any]]:
        """The schema of `step`, as the server describes its actions."""
        import httpx2

        at = cls.URL.replace("ws", "http", 1).rpartition("/")[0] + "/schema"
        try:
            answer = httpx2.get(at, timeout=30.0)
            answer.raise_for_status()
            action = answer.json()["action"]
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as fault:
            raise RecipeError(f"env: openenv:{cls.URL}: no schema of actions at {at}: {fault}; is the server up?") from fault
        # What every action of OpenEnv carries is none of the policy's business.
        properties = {key: value for key, value in action.get("properties", {}).items() if key != "metadata"}
        required = [key for key in action.get("required", []) if key in properties]
        parameters = {"type": "object", "properties": properties, "required": required}
        if "$defs" in action:
            parameters["$defs"] = action["$defs"]
        text = action.get("description") or "Act in the environment."
        return [{"type": "function", "function": {"name": "step", "description": text, "parameters": parameters}}]


def _shown(observation: Any) -> str:
    """An observation as text: the one text that it holds, else all of it as JSON."""
    if isinstance(observation, Mapping) and len(observation) == 1:
        observation = next(iter(observation.values()))
    return observation if isinstance(observation, str) else json.dumps(observation, ensure_ascii=False)


def served_at(url: str) -> type[OpenEnv]:
    """The environment of a server. Raises RecipeError where its client is not installed."""
    try:
        import websockets.sync.client  # noqa: F401
    except ImportError:
        raise RecipeError("env: openenv needs the package websockets: pip install 'tulu[environments]'") from None
    return type("OpenEnv", (OpenEnv,), {"URL": url})
