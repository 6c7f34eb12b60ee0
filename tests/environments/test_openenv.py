"""An environment behind a WebSocket, with a server that counts."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.server import Server, ServerConnection, serve

from tulu.environments.nursery import Failed, Late, Nursery, describe
from tulu.errors import RecipeError

ACTION = {
    "description": "Add to the counter.",
    "properties": {"x": {"type": "integer"}, "metadata": {"type": "object"}},
    "required": ["x"],
}


def counter(connection: ServerConnection) -> None:
    """Counts from the seed; the episode is over at 10, and only then has a reward."""
    count = 0
    for text in connection:
        message = json.loads(text)
        if message["type"] == "reset":
            count = message["data"].get("seed", 0)
        elif message["data"]["x"] < 0:
            connection.send(json.dumps({"type": "error", "data": {"message": "only upwards", "code": "INVALID"}}))
            continue
        elif message["data"]["x"] == 99:
            continue
        else:
            count += message["data"]["x"]
        content = {"observation": {"count": f"now {count}"}, "reward": 1.0 if count >= 10 else None, "done": count >= 10}
        connection.send(json.dumps({"type": "observation", "data": content}))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    def schema(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(200, json.dumps({"action": ACTION})) if request.path == "/schema" else None

    server: Server = serve(counter, "127.0.0.1", 0, process_request=schema)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
    server.shutdown()
    thread.join()


def test_the_servers_action_is_the_tool(url: str) -> None:
    made = describe(f"openenv:{url}", {})
    [tool] = made.tools
    assert tool["function"] == {
        "name": "step",
        "description": "Add to the counter.",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    }
    assert made.scores


def test_episodes_have_sessions_of_their_own(url: str) -> None:
    nursery = Nursery(f"openenv:{url}", {}, 5.0)
    one, other = nursery.start(), nursery.start()
    assert (one.reset({"seed": 4}, 60.0), other.reset({}, 60.0)) == ("now 4", "now 0")
    calls: list[tuple[str, dict[str, int]]] = [("step", {"x": 3}), ("step", {"x": -1}), ("step", {"x": 5}), ("step", {"x": 1})]
    assert one.call(calls, 60.0, 60.0) == [
        "now 7",
        "error: RuntimeError: the server answers step with: only upwards",
        "now 12",
        "error: the episode is over",
    ]
    assert one.reward(60.0) == 1.0
    # No reward was given yet, which is not 0.
    assert other.reward(60.0) is None
    with pytest.raises(Late, match=r"step: no result within 0\.5 s"):
        other.call([("step", {"x": 99})], 0.5, 60.0)
    nursery.close()


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(RecipeError, match=r"no schema of actions at http://127\.0\.0\.1:9/schema"):
        describe("openenv:ws://127.0.0.1:9/ws", {})
    nursery = Nursery("openenv:ws://127.0.0.1:9/ws", {}, 5.0)
    with pytest.raises(Failed, match="ConnectionRefusedError"):
        nursery.start().reset({}, 60.0)
    nursery.close()
