"""Task sets of the package `verifiers` (Prime Intellect, v1) as environments: their own rollout drives, our engine answers.

The package runs a task as it always does: it sets the task up, starts its servers of tools, lets its users speak and scores
what came of it. Where it would ask a model over HTTP, its `Client` is this file's: it hands the conversation to the process that
trains, which continues the tokens of the turns before, and takes back what was sampled, tokens and log-probs included.

    child:   reset(row) -> text | None       reply(turn) -> further messages | None       stop()       reward()

An episode is one conversation of one agent. What departs from that has no score, and says why: a second conversation, one whose
earlier turns are changed, an image, a tool that was not there at the start.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, ClassVar

from tulu.config.tasksets import VERIFIERS
from tulu.data.tasksets import asked, import_taskset, package, spelled
from tulu.environments.chat_program import chat_harness, intercepting_server
from tulu.errors import RecipeError

Messages = list[dict[str, Any]]
CONTEXT_IS_FULL = 400
"""The HTTP status with which a model refuses a conversation that is too long, by which a chat program ends as after an answer."""


class Departed(Exception):
    """The conversation is none that can be trained on; the text says why."""


class TasksetPlay:
    """One episode of a task. A thread runs the package's event loop; the process's own thread speaks to the parent."""

    NAME = ""
    """The name of the task set, as in `verifiers:NAME`."""
    environment: ClassVar[Any] = None
    """The package's environment, made once for all the episodes that are forked from this process."""

    def __init__(self) -> None:
        self._asked: queue.Queue[Messages | None] = queue.Queue()
        self._client = Client(self._asked.put)
        self._reward: float | None = None
        self._fault = ""

    @classmethod
    def _prepare(cls, **options: Any) -> None:
        """Import the package and the task set, and make the environment, before anything is forked."""
        module = import_taskset(cls.NAME)
        # It warns of every conversation that is refused a further turn; what went wrong is told with the verdict.
        logging.getLogger(VERIFIERS).setLevel(logging.ERROR)
        try:
            cls.environment = make_environment(module, options)
        # A task set may raise anything, and what it raises is told.
        except (Exception, SystemExit) as fault:
            text = f"env: {VERIFIERS}:{cls.NAME} cannot be made with the options {options}: {type(fault).__name__}: {fault}"
            raise RecipeError(text) from fault

    @classmethod
    def speaks(cls) -> bool:
        """Whether users may speak between turns: only a task set with an environment of its own lets them."""
        return type(cls.environment) is not package("envs.single_agent").SingleAgentEnv

    @classmethod
    def schemas(cls) -> list[dict[str, Any]]:
        """The tools that a policy is offered in the first task, in a process that plays nothing else."""
        with contextlib.suppress(StopIteration):
            task = next(iter(cls.environment.taskset))
            played = cls()
            played._begin(task)
            played.stop()
            return played._client.tools
        raise RecipeError(f"env: {VERIFIERS}:{cls.NAME} holds no tasks")

    def reset(self, row: Mapping[str, Any]) -> str | None:
        """Begin with the task of a row. What the user says first where the task has no prompt; None where it has one."""
        taskset = self.environment.taskset
        kind = type(taskset).task_type()
        task = kind(kind.data_type().model_validate(row["task"]), self.environment.config.taskset.task)
        expected = asked(task.data)
        first = self._begin(task)
        text = None
        if task.data.prompt is None:
            text = first[-1]["content"]
            expected[-1]["content"] = text
        if first != expected:
            raise Departed(f"the task set asks something else than its task holds: {first} in place of {expected}")
        if "tools" in row and self._client.tools != list(row["tools"]):
            raise Departed(f"the tools of this task are not those of the first: {self._client.tools}")
        return text

    def _begin(self, task: Any) -> Messages:
        threading.Thread(target=self._run, args=(task,), daemon=True).start()
        first = self._asked.get()
        if first is None:
            raise Departed(self._fault or "the task asked the policy nothing")
        return first

    def reply(self, turn: Mapping[str, Any]) -> Messages | None:
        """Answer with a turn of the policy. What is said then, by tools and users; None once the episode is over."""
        self._client.answer(turn)
        return self._asked.get()

    def stop(self) -> None:
        """Refuse the policy a further turn, as a model does whose context is full; what there is by then is scored."""
        self._client.refuse()
        while self._asked.get() is not None:
            pass

    def reward(self) -> float | None:
        """The weighted sum of the task's rewards; None where one of them is missing. Raises Departed where something failed."""
        if self._fault:
            raise Departed(self._fault)
        return self._reward

    # -- in the thread of the event loop -----------------------------------------------------------------------

    def _run(self, task: Any) -> None:
        try:
            self._reward = asyncio.run(self._play(task))
        # A task set may raise anything.
        except BaseException as fault:  # noqa: BLE001
            self._fault = f"{type(fault).__name__}: {fault}"
        self._fault = self._client.fault or self._fault
        self._asked.put(None)

    async def _play(self, task: Any) -> float | None:
        clients = package("clients")
        environment, own_setup = self.environment, self.environment.setup
        context = clients.ModelContext(model="policy", client=clients.TrainClientConfig())
        async with environment.serving():
            # Servers that all tasks share bring a secret of their own.
            secrets = tuple(server.state_secret for server in environment._shared_tools.values() if server.state_secret)
            async with intercepting_server(self._client, secrets) as server:

                async def setup(agents: Any) -> None:
                    await own_setup(agents)
                    for name in roles_of(environment.config):
                        agent = getattr(agents, name)
                        agent.interception = server
                        if agent.harness.config.id == "null":
                            agent.harness = chat_harness(agent.harness.config, self._client)

                environment.setup = setup
                episode = await environment.run_episode(task, context)
        return reward_of(episode)


def roles_of(config: Any) -> list[str]:
    """The agents that an environment's configuration declares."""
    return list(package("configs.agent").agent_config_fields(config))


def make_environment(module: str, options: Mapping[str, Any]) -> Any:
    """The environment of a task set. Its agents run on this machine, as a chat program where it brings no harness of its own."""
    loaders = package("utils.loaders")
    kind = loaders.env_config_type(module)
    config = kind.model_validate({"taskset": {"id": module, **options}})
    agents = {}
    for name in roles_of(config):
        own = getattr(config, name)
        harness = {"id": loaders.default_harness_id(module)} if own.harness is None else own.harness
        # A shell is no part of the conversation that a task describes, and nothing here would confine it.
        if own.harness is None and harness == {"id": "bash"}:
            harness = {"id": "null"}
        runtime = package("runtimes").SubprocessConfig()
        agents[name] = type(own).model_validate({**dict(own), "harness": harness, "runtime": runtime})
    return loaders.load_environment(config.model_copy(update=agents))


def reward_of(episode: Any) -> float | None:
    """What an episode is worth: None where a reward was not given. Raises Departed where it failed, or several agents played."""
    traces = episode.traces
    faults = [error.message for one in (episode, *traces) for error in one.errors]
    if not episode.ok or faults:
        raise Departed("; ".join(faults) or "the episode failed without a word")
    if len(traces) != 1:
        raise Departed(f"{len(traces)} agents played; only one conversation can be trained on")
    rewards = list(traces[0].rewards.values())
    if not rewards or any(reward is None for reward in rewards):
        return None
    return float(traces[0].reward)


class Client:
    """The package's client: `get_response` waits for a turn that the parent sampled."""

    def __init__(self, ask: Any) -> None:
        self._ask = ask
        self.tools: list[dict[str, Any]] = []
        self.fault = ""
        self.refused = False
        self._session: str | None = None
        self._known = 0
        """Messages of the conversation up to the last turn of the policy."""
        self._prompt: list[int] = []
        """The tokens of the conversation up to there."""
        self._turn: Future[Mapping[str, Any] | None] = Future()

    def answer(self, turn: Mapping[str, Any] | None) -> None:
        """Give what was asked for; None refuses it."""
        waiting, self._turn = self._turn, Future()
        waiting.set_result(turn)

    def refuse(self) -> None:
        """Refuse what is asked for, and all that may be asked later."""
        self.refused = True
        self.answer(None)

    async def get_response(
        self, dialect: Any, body: Any, sampling: Any, session_id: str | None = None, turn: Any = None, headers: Any = None
    ) -> Any:
        """The package's call for one turn of the model."""
        errors = package("errors")
        too_long = errors.ProviderError("the context is full (maximum context length)", status_code=CONTEXT_IS_FULL)
        if self.refused:
            raise too_long
        # The parent may answer before this line's next, and then another turn is waited for.
        waiting = self._turn
        try:
            self._ask(self._further(dialect, session_id, turn))
        except (Departed, RecipeError) as fault:
            self.fault = self.fault or str(fault)
            raise errors.ProviderError(self.fault, status_code=CONTEXT_IS_FULL) from fault
        said = await asyncio.wrap_future(waiting)
        if said is None:
            raise too_long
        response = self._response(said, bridged=self._known > 0)
        self._known = len(turn.prompt) + 1
        return response

    def _further(self, dialect: Any, session: str | None, turn: Any) -> Messages:
        """What was said since the last turn of the policy; at first, all of it. Raises Departed for what cannot be trained on."""
        if not isinstance(dialect, package("dialects").ChatDialect):
            raise Departed(f"its program speaks {type(dialect).__name__}; only chat completions are answered")
        self._session = self._session or session
        if session != self._session:
            raise Departed("a second conversation began; only one can be trained on")
        tools = [_schema(tool) for tool in turn.tools]
        if not self._known:
            self.tools = tools
            return [spelled(message) for message in turn.prompt]
        if turn.tail_start != self._known:
            raise Departed("the conversation does not go on where the policy's last turn ended; its history was rewritten")
        if tools != self.tools:
            raise Departed("the tools changed in the middle of the conversation")
        further = [{**spelled(message), "call": getattr(message, "tool_call_id", None)} for message in turn.tail]
        if strange := [one["role"] for one in further if one["role"] not in ("tool", "user")]:
            raise Departed(f"a message of the {strange[0]} follows a turn of the policy; only tools and users may speak there")
        return further

    def _response(self, said: Mapping[str, Any], bridged: bool) -> Any:
        """A turn as the package takes it, with the tokens that were sampled."""
        types = package("types")
        before, tokens, logps = said["before"], said["tokens"], said["logps"]
        calls = [types.ToolCall(id=one["id"], name=one["name"], arguments=one["arguments"]) for one in said["calls"]]
        prompt = [*self._prompt, *before]
        response = types.Response(
            id="tulu",
            created=0,
            model="policy",
            message=types.AssistantMessage(
                content=said["content"] or None, reasoning_content=said["reasoning"], tool_calls=calls or None
            ),
            finish_reason="tool_calls" if calls else said["finish"],
            usage=types.Usage(prompt_tokens=len(prompt), completion_tokens=len(tokens)),
            tokens=types.TurnTokens(prompt_ids=prompt, completion_ids=tokens, completion_logprobs=logps, bridged=bridged),
        )
        response.raw = package("clients.train").serialize_completion(response, "policy")
        self._prompt = [*prompt, *tokens]
        return response

    async def close(self) -> None:
        """Nothing is held."""


def _schema(tool: Any) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def played(name: str) -> type[TasksetPlay]:
    """The environment of a task set."""
    return type("TasksetPlay", (TasksetPlay,), {"NAME": name})
