"""A task set of the package `verifiers` for tests whose user opens the conversation, and answers every turn of the policy."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import verifiers.v1 as vf


class GuessData(vf.TaskData):
    number: int
    record: str = ""


class GuessTask(vf.Task[GuessData, vf.State, vf.TaskConfig]):
    @vf.reward
    async def found(self, trace: vf.Trace) -> float:
        said = [message.content for message in trace.assistant_messages]
        if "fault" in said:
            raise ValueError("the judge is down")
        if self.data.record:
            [branch] = trace.branches
            record = {"tokens": branch.token_ids, "sampled": branch.sampled_mask, "said": said}
            Path(self.data.record).write_text(json.dumps(record))
        return float(str(self.data.number) in said)


class GuessEnv(vf.SingleAgentEnv):
    async def run(self, task: GuessTask, agents: vf.Agents) -> None:
        said = "Guess."
        async with agents.agent.interaction(task) as interaction:
            while not (segment := await interaction.turn(said)).terminated:
                if segment.last_reply == str(task.data.number):
                    return
                if segment.last_reply == "hang":
                    time.sleep(1000)
                said = f"Not {segment.last_reply}."


class GuessConfig(vf.TasksetConfig):
    record: str = ""


class GuessTaskset(vf.Taskset[GuessTask, GuessConfig]):
    INFINITE = True

    def load(self) -> Iterator[GuessTask]:
        number = 0
        while True:
            number += 1
            yield GuessTask(GuessData(prompt=None, number=number, record=self.config.record))


__all__ = ["GuessEnv", "GuessTaskset"]
