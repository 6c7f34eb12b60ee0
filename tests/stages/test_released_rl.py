"""PPO and legacy GRPO under the released recipes: three steps give the weights of an independent implementation, to 1e-6."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.samples import make_stage, stay_in_float64
from tests.stages import released_rl
from tests.stages.released_rl import Engine, Sample, Settings, Updates
from tulu.advantages import group_advantages
from tulu.config.schema import Rlvr
from tulu.data.mixing import order
from tulu.grading.reward import Grades
from tulu.model.batch import pack_row
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.reward_models.model import RewardModel
from tulu.rollout.sampler import Rollout, StepRollouts
from tulu.stages.ppo import ActorCritic
from tulu.stages.rlvr import Models, update, update_rates
from tulu.train.optimizer import Learner
from tulu.types import Completion, Group, Problem

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3
ADAMW = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "weight_decay": 0.01, "clip_norm": 1.0}
"""torch.optim.AdamW(params, lr) and max_norm of get_train_ds_config (ppo_vllm_thread_ray_gtrl.py @ bac93931^)."""
MICRO_MEAN = {"denominator": "micro_mean", "loss_micro_batch": 2, "rate_by": "update", "ratio_cap": None, "refill": False}
PPO = {**ADAMW, **MICRO_MEAN, "old": "step", "samples": 1, "advantage": "gae", "minibatches": 1, "updates": 4, "kl": "k1"}
PPO |= {"clip_low": 0.2, "clip_high": 0.2, "schedule": "linear", "warmup": 0.0, "temperature": 1.0}
VALUE = {"coefficient": 0.1, "clip": 0.2, "clip_norm": 1.0, "reward_at": "after", "gamma": 1.0, "lam": 0.95, "whiten": True}
RELEASED: Mapping[str, Mapping[str, Any]] = {
    "tulu3-8b": {**PPO, "beta": 0.05, "value": {**VALUE, "whiten_over": 32}},
    "olmo2-instruct": {**PPO, "beta": 0.1, "value": {**VALUE, "whiten_over": 8}},
    "tulu3.1-8b": {
        **{**ADAMW, **MICRO_MEAN, "old": "minibatch", "advantage": "standard", "ddof": 1, "minibatches": 2, "updates": 1},
        **{"kl": "k3", "beta": 0.01, "clip_low": 0.2, "clip_high": 0.2, "schedule": "constant", "warmup": 0.0},
        **{"temperature": 1.0, "samples": 16},
    },
}
"""What decides the order of operations for each model (docs/tulu3.md, docs/archived_dev_scripts/olmo2_1124.sh): by it the
independent implementation works. The package works by the recipe's file alone."""


def written(name: str) -> Mapping[str, Any]:
    """The rlvr section as it stands in the recipe's file."""
    section: Mapping[str, Any] = yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))["rlvr"]
    return section


def released(name: str, **changes: Any) -> Any:
    """The rlvr section of a released recipe at the size of a test; a change to `value__FIELD` is one of the value model's."""
    fields: dict[str, Any] = dict(written(name))
    grpo = fields["advantage"] == "standard"
    # Smaller, and at a rate at which a wrong update moves weights by much more than is compared.
    fields |= {"prompts": 4 if grpo else 8, "samples": 4 if grpo else 1, "max_prompt": 8, "max_tokens": 6, "max_length": 14}
    fields |= {"batch": fields["prompts"] * fields["samples"], "learning_rate": 1e-3, "steps": STEPS, "epochs": None}
    fields |= {"micro_batch": 3, "row_tokens": 24, "precision": "fp32", "sharding": "none", "gradient_checkpointing": False}
    if not grpo:
        fields["value"] = {**fields["value"], "whiten_over": 4}
    for key, change in changes.items():
        if key.startswith("value__"):
            fields["value"] = {**fields["value"], key.removeprefix("value__"): change}
        else:
            fields[key] = change
    return make_stage(Rlvr, **{key: value for key, value in fields.items() if value is not None or key == "ratio_cap"})


def settings_of(name: str) -> Settings:
    """The same in the original's words, from what is known of the release and not from the package's fields."""
    said, stage = RELEASED[name], released(name)
    ppo: dict[str, Any] = {}
    if said["advantage"] == "gae":
        value = said["value"]
        ppo = {"vf_coef": value["coefficient"], "cliprange_value": value["clip"], "gamma": value["gamma"], "lam": value["lam"]}
        ppo["local_rollout_batch_size"] = 4
    return Settings(
        response_length=stage.max_tokens,
        temperature=said["temperature"],
        num_training_steps=STEPS,
        learning_rate=1e-3,
        lr_scheduler_type=said["schedule"],
        warmup_ratio=said["warmup"],
        num_epochs=said["updates"],
        num_mini_batches=said["minibatches"],
        eps=said["adam_epsilon"],
        weight_decay=said["weight_decay"],
        max_norm=said["clip_norm"],
        beta=said["beta"],
        kl_estimator=said["kl"].replace("k", "kl"),
        cliprange=said["clip_low"],
        number_samples_per_prompt=stage.samples,
        **ppo,
    )


def samples_of(stage: Rlvr, step: int) -> list[Sample]:
    """Fixed rollouts: prompts and responses of different lengths, some of them cut off at max_tokens."""
    generator = torch.Generator().manual_seed(step + 20)

    def tokens(n: int) -> list[int]:
        drawn: list[int] = torch.randint(3, 250, (n,), generator=generator).tolist()
        return drawn

    samples = []
    for place in range(stage.prompts):
        prompt = tokens(2 + (place + step) % 5)
        for copy in range(stage.samples):
            length = 1 + (2 * place + copy + step) % stage.max_tokens
            cut_off = length == stage.max_tokens
            score = -10.0 if cut_off and stage.value else 10.0 * ((place + copy + step) % 3 == 0)
            samples.append(Sample(prompt, tokens(length), score))
    return samples


def updates_of(stage: Rlvr, step: int) -> Updates:
    """The micro-batches of every update, in which the package shuffles completions; the original draws them at random."""
    each = stage.minibatches * stage.updates
    updates = []
    for number in range(each):
        # An update takes a stretch of the prompts, in the order of drawing.
        each_part = stage.prompts // stage.minibatches
        first = number % stage.minibatches * each_part
        problems = range(first, first + each_part)
        members = [problem * stage.samples + copy for problem in problems for copy in range(stage.samples)]
        shuffled = [members[place] for place in order(len(members), stage.seed, step * each + number)]
        updates.append([shuffled[first : first + 2] for first in range(0, len(shuffled), 2)])
    return updates


@dataclass(frozen=True)
class Folders:
    model: Path
    reward_model: Path


Weights = dict[str, Tensor]


def weights(**modules: nn.Module) -> Weights:
    named = ((f"{part}.{name}", tensor) for part, module in modules.items() for name, tensor in module.named_parameters())
    return {name: tensor.detach().clone() for name, tensor in named}


def by_the_original(name: str, folders: Folders) -> list[Weights]:
    """The weights after every step by the independent implementation."""
    stage, settings = released(name), settings_of(name)
    options: dict[str, Any] = {"dtype": torch.float64, "attn_implementation": "eager"}
    policy, reference = (AutoModelForCausalLM.from_pretrained(folders.model, **options) for _ in range(2))
    engine = Engine(policy, settings)
    found = []
    if stage.value is None:
        for step in range(STEPS):
            released_rl.grpo_step(engine, reference, samples_of(stage, step), updates_of(stage, step), settings)
            found.append(weights(policy=policy))
        return found
    value = AutoModelForSequenceClassification.from_pretrained(folders.reward_model, **options)
    value_engine = Engine(value, settings)
    for step in range(STEPS):
        released_rl.ppo_step(engine, value_engine, reference, samples_of(stage, step), updates_of(stage, step), settings)
        found.append(weights(policy=policy, value=value))
    return found


def by_tulu(stage: Rlvr, folders: Folders, steps: int = STEPS) -> list[Weights]:
    """The weights after every step by the package."""
    policy, reference = Policy.load(folders.model), Policy.load(folders.model, trainable=False)
    critic = None
    if stage.value is not None:
        value = RewardModel.load(folders.reward_model, trainable=True)
        critic = ActorCritic(policy, value, ends=stage.value.reward_at == "after")
    for module in (reference.module, (critic or policy).module):
        module.double()
    learner = Learner(critic or policy, stage, Parallel(stage))

    def kl_reference(batch: Any) -> Tensor:
        return reference.logps(batch, stage.temperature)

    models = Models(policy, critic, kl_reference)
    found = []
    for step in range(steps):
        rollouts = [rollout(policy, stage, samples) for samples in of_prompts(samples_of(stage, step), stage.samples)]
        rates = update_rates(stage, step, STEPS)
        update(learner, models, StepRollouts(rollouts, rollouts), stage, step, rates)
        found.append(weights(policy=policy.model, **({"value": critic.value.model} if critic else {})))
    return found


def of_prompts(samples: Sequence[Sample], each: int) -> Iterator[Sequence[Sample]]:
    return (samples[first : first + each] for first in range(0, len(samples), each))


def rollout(policy: Policy, stage: Rlvr, samples: Sequence[Sample]) -> Rollout:
    """The samples of one prompt, as the sampler hands them over."""
    prompt = samples[0].prompt
    scores = [sample.score for sample in samples]
    plain = [Completion(sample.response, [True] * len(sample.response)) for sample in samples]
    batch = pack_row([Group(prompt, tuple(plain))])
    with torch.no_grad():
        logps_N = policy.logps(batch, stage.temperature)
    completions = [
        replace(completion, sampler_logps=logps_N[batch.owner_N == place].tolist()) for place, completion in enumerate(plain)
    ]
    advantages = group_advantages(torch.tensor(scores, dtype=torch.float64), stage.advantage, stage.ddof).tolist()
    nothing = ("",) * len(samples)
    grades = (Grades(None),) * len(samples)
    problem = Problem("row:1", [], prompt, None, [])
    return Rollout(problem, Group(prompt, tuple(completions), "row:1"), nothing, grades, tuple(scores), tuple(advantages))


FAMILY = {"tulu3-8b": "llama", "olmo2-instruct": "olmo2", "tulu3.1-8b": "llama"}


@pytest.fixture(scope="module")
def original(
    tiny_model: Callable[..., Path], tiny_reward_model: Callable[..., Path]
) -> Callable[[str], tuple[Folders, list[Weights]]]:
    """original(recipe) -> the model folders and the weights after every step by the independent implementation."""
    done: dict[str, tuple[Folders, list[Weights]]] = {}

    def run(name: str) -> tuple[Folders, list[Weights]]:
        if name not in done:
            folders = Folders(tiny_model(FAMILY[name]), tiny_reward_model(FAMILY[name], 1))
            done[name] = folders, by_the_original(name, folders)
        return done[name]

    return run


def furthest(found: Weights, expected: Weights) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


@pytest.mark.parametrize("name", RELEASED)
def test_the_recipe_says_what_the_original_did(name: str) -> None:
    section, said = written(name), RELEASED[name]
    assert {key: section[key] for key in said if key != "value"} == {key: said[key] for key in said if key != "value"}
    if "value" in said:
        assert {key: section["value"][key] for key in said["value"]} == said["value"]


@pytest.mark.parametrize("name", RELEASED)
def test_three_steps_give_the_weights_of_the_original(
    name: str, original: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    folders, expected = original(name)
    found = by_tulu(released(name), folders)
    for step in range(STEPS):
        assert furthest(found[step], expected[step]) < 1e-6, f"after step {step + 1}"
    moved = furthest(expected[-1], weights_at_start(name, folders))
    assert moved > 1e-3, "so little moves that nothing is compared"


def weights_at_start(name: str, folders: Folders) -> Weights:
    stage = released(name)
    start = {"policy": AutoModelForCausalLM.from_pretrained(folders.model, dtype=torch.float64)}
    if stage.value is not None:
        start["value"] = AutoModelForSequenceClassification.from_pretrained(folders.reward_model, dtype=torch.float64)
    return weights(**start)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tulu3-8b", {"value__reward_at": "last"}),
        ("tulu3-8b", {"value__clip_norm": None}),
        ("tulu3-8b", {"value__whiten_over": None}),
        ("tulu3-8b", {"denominator": "token"}),
        ("tulu3-8b", {"rate_by": "step"}),
        ("tulu3-8b", {"weight_decay": 0.0}),
        ("tulu3-8b", {"adam_epsilon": 1e-5}),
        ("tulu3.1-8b", {"old": "step"}),
        ("tulu3.1-8b", {"denominator": "token"}),
        ("tulu3.1-8b", {"ddof": 0}),
    ],
)
def test_each_of_the_originals_ways_matters(
    name: str, change: dict[str, Any], original: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    folders, expected = original(name)
    [found] = by_tulu(released(name, **change), folders, steps=1)
    assert furthest(found, expected[0]) > 5e-6
