"""PPO and legacy GRPO as open-instruct trained Tülu 3, Tülu 3.1 and OLMo 2, in plain torch over padded rows.

This is the oracle for `tulu rlvr` under a released recipe. It follows the order of operations that ppo_vllm_thread_ray_gtrl.py
@ bac93931^ and grpo_vllm_thread_ray_gtrl.py @ 745bf58d have, and shares no code with the package: prompts are padded on the
left, responses on the right with the end token, policy and value model are two engines with an optimizer each, and what the
original spreads over processes is a list of micro-batches here.

Shape letters: B completions of a step, T positions of a response.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

END = 2
"""The token that responses are padded with. What stands behind a response's own tokens is never seen by them."""


@dataclass(frozen=True)
class Sample:
    """A prompt and what was sampled from it, with its score from the verifier."""

    prompt: Sequence[int]
    response: Sequence[int]
    score: float


@dataclass(frozen=True)
class Settings:
    """What the original's command lines and defaults say, under the names that they have there."""

    response_length: int
    temperature: float
    num_training_steps: int
    learning_rate: float
    lr_scheduler_type: str
    warmup_ratio: float
    num_epochs: int
    num_mini_batches: int
    eps: float
    weight_decay: float
    max_norm: float
    beta: float
    kl_estimator: str
    cliprange: float
    vf_coef: float = 0.0
    cliprange_value: float = 0.0
    gamma: float = 1.0
    lam: float = 1.0
    local_rollout_batch_size: int = 0
    """Completions of one process, over which advantages are whitened."""
    number_samples_per_prompt: int = 1


Updates = Sequence[Sequence[Sequence[int]]]
"""For each optimizer update of a step its micro-batches, each a list of places among the step's samples. The original shuffles
them at random."""


class Rows:
    """A step's samples as padded rows."""

    def __init__(self, samples: Sequence[Sample], response_length: int) -> None:
        self.context = max(len(sample.prompt) for sample in samples)
        tokens, attention = [], []
        for sample in samples:
            left = self.context - len(sample.prompt)
            right = response_length - len(sample.response)
            tokens.append([0] * left + [*sample.prompt, *sample.response] + [END] * right)
            attention.append([0] * left + [1] * (self.context - left + response_length))
        self.tokens = torch.tensor(tokens)
        self.attention = torch.tensor(attention)
        self.position = self.attention.cumsum(1) - self.attention
        self.last = torch.tensor([len(sample.response) - 1 for sample in samples])
        place = torch.arange(response_length)[None]
        self.mask = place <= self.last[:, None]
        self.mask_p1 = place <= self.last[:, None] + 1
        self.scores = torch.tensor([sample.score for sample in samples], dtype=torch.float64)

    def inputs(self, places: Sequence[int]) -> dict[str, Tensor]:
        rows = list(places)
        return {
            "input_ids": self.tokens[rows],
            "attention_mask": self.attention[rows],
            "position_ids": self.position[rows],
        }

    def logps(self, policy: Any, places: Sequence[int], temperature: float) -> Tensor:
        """(B, T) log-probs of the responses' tokens, 0 behind them."""
        logits = policy(**self.inputs(places)).logits[:, self.context - 1 : -1] / temperature
        response = self.tokens[list(places), self.context :]
        logps = torch.log_softmax(logits, -1).gather(2, response[..., None])[..., 0]
        return torch.where(self.mask[list(places)], logps, torch.zeros(()).double())

    def values(self, model: Any, places: Sequence[int]) -> Tensor:
        """(B, T) values of the states before the responses' tokens and of one state more, 0 behind that."""
        hidden = model.base_model(**self.inputs(places)).last_hidden_state
        values = model.score(hidden)[:, self.context - 1 : -1, 0]
        return torch.where(self.mask_p1[list(places)], values, torch.zeros(()).double())


class Engine:
    """A model with its own optimizer, schedule and gradient clipping, as one DeepSpeed engine has them."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, eps=settings.eps, weight_decay=settings.weight_decay
        )
        self.done = 0

    def rate(self) -> float:
        """Linear or constant after a linear warm-up, counted in optimizer updates."""
        settings = self.settings
        total = settings.num_training_steps * settings.num_epochs * settings.num_mini_batches
        warmup = int(total * settings.warmup_ratio)
        if self.done < warmup:
            return settings.learning_rate * self.done / warmup
        left = (total - self.done) / max(1, total - warmup)
        return settings.learning_rate * (left if settings.lr_scheduler_type == "linear" else 1.0)

    def step(self) -> None:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        if norm > self.settings.max_norm:
            for gradient in gradients:
                gradient.mul_(self.settings.max_norm / (norm + 1e-6))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()


def masked_whiten(values: Tensor, mask: Tensor) -> Tensor:
    mean = masked_mean(values, mask)
    count = mask.sum()
    variance = masked_mean((values - mean) ** 2, mask) * count / (count - 1)
    return (values - mean) * torch.rsqrt(variance + 1e-8)


def advantages_and_returns(rows: Rows, values: Tensor, kl: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """The score one position behind the response where there is one, KL in every reward, GAE, and whitening for each process."""
    n, length = values.shape
    rewards = -settings.beta * kl
    for row in range(n):
        behind = int(rows.last[row]) + 1
        rewards[row, behind if behind < length else behind - 1] += rows.scores[row]
    advantages = torch.zeros_like(values)
    running = torch.zeros(n, dtype=torch.float64)
    for t in reversed(range(length)):
        after = values[:, t + 1] if t + 1 < length else torch.zeros(n, dtype=torch.float64)
        delta = rewards[:, t] + settings.gamma * after - values[:, t]
        running = delta + settings.gamma * settings.lam * running
        advantages[:, t] = running
    returns = advantages + values
    for first in range(0, n, settings.local_rollout_batch_size):
        own = slice(first, first + settings.local_rollout_batch_size)
        advantages[own] = masked_whiten(advantages[own], rows.mask[own])
    return torch.where(rows.mask, advantages, torch.zeros(()).double()), returns


def clipped_policy_loss(advantage: Tensor, ratio: Tensor, cliprange: float) -> Tensor:
    return torch.max(-advantage * ratio, -advantage * torch.clamp(ratio, 1 - cliprange, 1 + cliprange))


def ppo_step(
    policy: Engine, value: Engine, reference: nn.Module, samples: Sequence[Sample], updates: Updates, settings: Settings
) -> dict[str, Tensor]:
    """One training step; returns what was computed before its first update."""
    rows = Rows(samples, settings.response_length)
    everyone = range(len(samples))
    assert settings.kl_estimator == "kl1"
    with torch.no_grad():
        old = rows.logps(policy.model, everyone, settings.temperature)
        kl = old - rows.logps(reference, everyone, settings.temperature)
        old_values = rows.values(value.model, everyone)
        advantages, returns = advantages_and_returns(rows, old_values, kl, settings)
    for micro_batches in updates:
        for places in map(list, micro_batches):
            values = rows.values(value.model, places)
            before = old_values[places]
            clipped = torch.clamp(values, before - settings.cliprange_value, before + settings.cliprange_value)
            errors = torch.max((values - returns[places]) ** 2, (clipped - returns[places]) ** 2)
            value_loss = 0.5 * masked_mean(errors, rows.mask_p1[places])
            (settings.vf_coef * value_loss / len(micro_batches)).backward()

            ratio = torch.exp(rows.logps(policy.model, places, settings.temperature) - old[places])
            loss = masked_mean(clipped_policy_loss(advantages[places], ratio, settings.cliprange), rows.mask[places])
            (loss / len(micro_batches)).backward()
        value.step()
        policy.step()
    return {"old": old, "values": old_values, "advantages": advantages, "returns": returns}


def grpo_step(
    policy: Engine, reference: nn.Module, samples: Sequence[Sample], updates: Updates, settings: Settings
) -> dict[str, Tensor]:
    """One training step; returns the advantages. Samples of one prompt stand side by side."""
    rows = Rows(samples, settings.response_length)
    with torch.no_grad():
        reference_logps = rows.logps(reference, range(len(samples)), settings.temperature)
        groups = rows.scores.view(-1, settings.number_samples_per_prompt)
        advantages = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-8)
        advantages = advantages.flatten()
    old = torch.zeros_like(reference_logps)
    assert settings.kl_estimator == "kl3"
    for number, micro_batches in enumerate(updates):
        for places in map(list, micro_batches):
            new = rows.logps(policy.model, places, settings.temperature)
            if number < settings.num_mini_batches:
                old[places] = new.detach()
            ratio = torch.exp(new - old[places])
            apart = (new - reference_logps[places]).clamp(-40.0, 40.0)
            kl = torch.expm1(-apart) + apart
            terms = clipped_policy_loss(advantages[places, None], ratio, settings.cliprange) + settings.beta * kl
            (masked_mean(terms, rows.mask[places]) / len(micro_batches)).backward()
        policy.step()
    return {"advantages": advantages}
