"""A task set of the package `verifiers` for tests: sums that a server of tools adds, as an author of one would write it."""

import verifiers.v1 as vf


class SumData(vf.TaskData):
    answer: int


class SumTaskConfig(vf.TaskConfig):
    tools: vf.ToolsetConfig = vf.ToolsetConfig(colocated=True)


class Adder(vf.Toolset[vf.ToolsetConfig]):
    TOOL_PREFIX = "adder"

    @vf.tool
    def add(self, x: int, y: int) -> str:
        """Add two numbers."""
        return str(x + y)


class SumTask(vf.Task[SumData, vf.State, SumTaskConfig]):
    @classmethod
    def toolsets(cls, config: SumTaskConfig) -> list[vf.Toolset]:
        return [Adder(config.tools)]

    @vf.reward(weight=2.0)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.assistant_messages[-1].content == str(self.data.answer))

    @vf.reward(weight=0.5)
    async def turns(self, trace: vf.Trace) -> float:
        return float(trace.num_turns)


class SumConfig(vf.TasksetConfig):
    task: SumTaskConfig = SumTaskConfig()
    size: int = 4


class SumTaskset(vf.Taskset[SumTask, SumConfig]):
    def load(self) -> list[SumTask]:
        numbers = [(10 + index, 20 + index) for index in range(self.config.size)]
        return [SumTask(SumData(prompt=f"{x}+{y}=?", system_prompt="Add.", answer=x + y), self.config.task) for x, y in numbers]


__all__ = ["SumTaskset"]

if __name__ == "__main__":
    Adder.run()
