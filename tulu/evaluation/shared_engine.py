"""One engine that answers the tasks of a suite one after the other, and one policy that says how likely given answers are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tulu.config.options import EngineName
from tulu.model.policy import Policy
from tulu.rollout.engine import EngineSpec, ProgressCallback, RolloutEngine
from tulu.rollout.engines import make_engine
from tulu.types import Group, Problem, SamplingParams


class SharedEngine:
    """Starts the engine, or loads the policy, when the first task needs it: a suite whose answers are there starts neither."""

    def __init__(self, name: EngineName, spec: EngineSpec, template: str) -> None:
        """`spec` has room for the longest prompt and answer of all tasks."""
        self.name, self.spec, self.template = name, spec, template
        self._engine: RolloutEngine | None = None
        self._policy: Policy | None = None
        self._told: ProgressCallback | None = None

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        """What `RolloutEngine.generate` returns."""
        if self._engine is None:
            # Both models in memory would be one too many for a large one.
            self._policy = None
            self._engine = make_engine(self.name, self.spec, progress=self._tell)
        return self._engine.generate(problems, n, params)

    def policy(self) -> Policy:
        """The model as a policy, in place of the engine."""
        if self._policy is None:
            self.close()
            spec = self.spec
            self._policy = Policy.load(
                spec.folder,
                template=self.template,
                trainable=False,
                precision=spec.precision,
                revision=spec.revision,
                trust_remote_code=spec.trust_remote_code,
            )
        return self._policy

    @contextmanager
    def telling(self, progress: ProgressCallback) -> Iterator["SharedEngine"]:
        """While the context lasts, `progress` is called as completions are finished."""
        self._told = progress
        try:
            yield self
        finally:
            self._told = None

    def close(self) -> None:
        """Stop the engine, if one was started."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _tell(self, finished: int, requested: int) -> None:
        if self._told is not None:
            self._told(finished, requested)
