"""Random groups, the oracle for them (transformers, one sequence at a time), and one step's gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

from tulu.config.schema import TrainStage
from tulu.losses import Loss
from tulu.model.batch import Batch
from tulu.model.parallel import Parallel
from tulu.train.optimizer import Learner, Trainable
from tulu.train.step import Normaliser, step
from tulu.types import Completion, Group


def make_group(seed: int, prompt: int, lengths: Sequence[int], trained: float = 0.8) -> Group:
    """Random tokens; each is trained with the given probability, a completion's last one always."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(n: int) -> list[int]:
        random: list[int] = torch.randint(0, 256, (n,), generator=generator).tolist()
        return random

    def completion(n: int) -> Completion:
        flags = (torch.rand(n, generator=generator) < trained).tolist()
        return Completion(tokens(n), [*flags[:-1], True])

    return Group(tokens(prompt), tuple(completion(n) for n in lengths), id=f"row:{seed}")


def in_order(batches: Sequence[Batch], per_token: Callable[[Batch], Tensor]) -> Tensor:
    """Per-token numbers of packed rows, put back into the order of the groups and their completions."""
    numbers: dict[tuple[int, int], Tensor] = {}
    for batch in batches:
        values_N = per_token(batch)
        for completion, place in enumerate(batch.index_C):
            numbers[place] = values_N[batch.owner_N == completion]
    return torch.cat([numbers[place] for place in sorted(numbers)])


def plain_logps(model: nn.Module, groups: Sequence[Group], temperature: float = 1.0) -> Tensor:
    """The oracle: log softmax of transformers' own logits, prompt and completion alone in a batch of one."""
    found = []
    for group in groups:
        for completion in group.completions:
            tokens_T = torch.tensor([*group.prompt, *completion.tokens])
            logits_TV = model(input_ids=tokens_T[None], use_cache=False).logits[0, :-1] / temperature
            logps_TV = torch.log_softmax(logits_TV, dim=-1)
            logps_T = logps_TV.gather(1, tokens_T[1:, None])[:, 0]
            start = len(group.prompt)
            # Without a prompt nothing predicts the first token.
            trained = torch.tensor(completion.trained)[max(0, 1 - start) :]
            found.append(logps_T[max(0, start - 1) :][trained])
    return torch.cat(found)


def stay_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers computes norms and routers in float32 even in a float64 model; while a test lasts it does not."""
    to, softmax = torch.Tensor.to, torch.nn.functional.softmax

    def stay(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return tensor if tensor.dtype == torch.float64 and args[:1] == (torch.float32,) else to(tensor, *args, **kwargs)

    def wide(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return softmax(tensor, *args, **{**kwargs, "dtype": torch.float64} if tensor.dtype == torch.float64 else kwargs)

    monkeypatch.setattr(torch.Tensor, "to", stay)
    monkeypatch.setattr(torch.nn.functional, "softmax", wide)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter's gradient, zero where it has none, under its own name whatever wraps it."""
    return {
        name.removeprefix("model.").replace("trunk.", ""): torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()
        for name, p in module.named_parameters()
        if p.requires_grad
    }


def largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest |found - expected| of any entry, relative to the largest entry of all."""
    assert found.keys() == expected.keys()
    scale = max(float(tensor.abs().max()) for tensor in expected.values())
    assert scale > 0, "nothing to compare: every gradient is zero"
    return max(float((found[name] - expected[name]).abs().max()) for name in expected) / scale


def make_stage(kind: type[TrainStage] = TrainStage, **fields: Any) -> Any:
    """A stage's section with what a test does not care about filled in."""
    settings = {"data": "none.jsonl", "max_length": 512, "batch": 8, "steps": 1, "learning_rate": 1e-3, "precision": "fp32"}
    return kind(**{**settings, **fields})


def step_gradients(
    model: Trainable, batches: Sequence[Any], objective: Callable[[Any], Loss], normaliser: Normaliser[Any]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What `train.step` hands the optimizer, at learning rate 0 so that the model can be asked again, and its metrics."""
    learner = Learner(model, make_stage(), Parallel(make_stage()))
    learner.set_learning_rate(0.0)
    seen: dict[str, Tensor] = {}
    before_step(learner, lambda: seen.update(gradients(model.module)))
    metrics = step(learner, batches, objective, normaliser)
    return seen, metrics


def before_step(learner: Learner, look: Callable[[], None]) -> None:
    """Call `look` whenever the optimizer is about to step, its gradients final."""
    optimizer: Any = learner.optimizer
    plain = optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer
    plain.register_step_pre_hook(lambda *_: look())


class OneAnHour:
    """In place of a meter of energy: every session takes 1 kWh of the GPUs."""

    last: "OneAnHour"
    """The one that was made last."""

    def __init__(self, before: dict[str, float], keep: Callable[[dict[str, float]], None]) -> None:
        self.kwh, self.keep = before.get("kwh", 0.0) + 1.0, keep
        OneAnHour.last = self

    def read(self) -> dict[str, float]:
        """All sessions, this one included."""
        return {"kwh": self.kwh, "gpu_kwh": self.kwh, "cpu_kwh": 0.0, "ram_kwh": 0.0}

    stop = read

    def tick(self) -> None:
        """What a meter does twice a minute."""
        self.keep(self.read())
