"""`--check`: what a CPU cannot prove. Exactness on the device, NCCL, precisions, and resuming.

Every check compares with something computed in another way, and says what it found whether it holds or not.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.gpu_cases import Failed, Figures
from benchmarks.gpu_shapes import tokenizer
from tulu.config.schema import Sft, Source
from tulu.losses import sft_loss
from tulu.model.attention import ordinary_attention_of
from tulu.model.batch import Batch, documents, pack_row
from tulu.model.dropout import start_training
from tulu.model.masters import parameters_of
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.train.fit import pack_whole
from tulu.train.optimizer import Learner
from tulu.train.step import count_tokens, step
from tulu.types import Completion, Group

VOCABULARY = 320
DENSE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
}
WINDOW = 64
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 32,
    "long_factor": [1.0 + 0.1 * place for place in range(32)],
    "original_max_position_embeddings": 256,
    "factor": 8.0,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "OLMo 2": ("olmo2", {"num_key_value_heads": 4}),
    "Olmo 3, window": ("olmo3", {"sliding_window": WINDOW}),
    "OLMoE": ("olmoe", {"num_key_value_heads": 4, "num_experts": 8, "num_experts_per_tok": 2}),
    "Qwen3": ("qwen3", {}),
    "Llama": ("llama", {}),
    "Gemma 2, soft cap": ("gemma2", {"sliding_window": WINDOW, "attn_logit_softcapping": 20.0}),
    "gpt-oss, sinks": ("gpt_oss", {"sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "Phi-3, LongRoPE": ("phi3", {"rope_parameters": LONG_ROPE, "original_max_position_embeddings": 256}),
}
"""The architectures whose attention on the device is checked, with what their configurations add to DENSE."""
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
"""What makes them small enough for a test on a CPU."""
WITHOUT_KERNEL = ("gemma2", "gpt_oss")
"""Architectures whose scores no flash attention computes: a soft cap, and sinks."""
SLACK = 1.6
"""How far from float32 packed rows in bf16 may be, as a multiple of how far transformers' own forward pass in bf16 is."""
EXACT = 2e-4
"""The largest mean difference of log-probs in float32 that passes as the order of summation."""


# -- exactness ---------------------------------------------------------------------------------------------------------


def exactness(family: str, fields: Mapping[str, Any], device: torch.device) -> Figures:
    """Packed rows in float32 and bf16 against transformers' eager attention in float32, one document at a time.

    Values: mean |Δ log-prob| of the trained tokens. Gradients: cosine and relative distance of all weights together. In bf16
    both are compared with how far transformers' own forward pass in bf16 is from float32.
    """
    groups = sample_groups()
    batch = pack_row(groups).to(device)
    model = tiny_model(family, fields, device)
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    truth = of_plain(plain, batch)
    plain = plain.to(torch.bfloat16)
    plain.set_attn_implementation(ordinary_attention_of(plain))
    usual = compare(of_plain(plain, batch), truth)
    del plain

    wide = compare(of_packed(copy.deepcopy(model), batch, "fp32")[0], truth)
    found, kernels, rows = of_packed(model, batch, "bf16")
    packed = compare(found, truth)
    figures = {"float32": wide, "bf16": packed, "transformers bf16": usual, "attention": kernels, "rows": rows}
    if rows != "packed":
        raise Failed(f"its rows are {rows}, not packed", figures)
    if not wide["logp"] <= EXACT:
        raise Failed(f"in float32 log-probs are off by {wide['logp']:.1e}", figures)
    for measure in ("logp", "gradient_distance"):
        if not packed[measure] <= SLACK * usual[measure]:
            raise Failed(f"{measure} in bf16 is off by {packed[measure]:.1e}, transformers' by {usual[measure]:.1e}", figures)
    if device.type == "cuda" and family not in WITHOUT_KERNEL and "flash" not in kernels:
        raise Failed(f"bf16 does not take flash attention for the whole row: {kernels or 'no kernel'}", figures)
    return figures


def sample_groups(count: int = 4) -> list[Group]:
    """Prompts with one to four completions, shorter and longer than the window, one beyond Phi-3's threshold; random tokens."""
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> list[int]:
        return list(torch.randint(0, 256, (length,), generator=generator).tolist())

    sizes = [(90, (70, 33)), (5, (201,)), (130, (1, 64, 17, 190)), (64, (64, 128))]
    return [
        Group(tokens(prompt), tuple(Completion(tokens(length), [True] * length) for length in lengths), f"row:{number}")
        for number, (prompt, lengths) in enumerate(sizes[:count])
    ]


def tiny_model(family: str, fields: Mapping[str, Any], device: torch.device, seed: int = 0) -> Any:
    """A random float32 model whose weights are large enough that a mistake shows."""
    special = tokenizer()
    ids = {f"{kind}_token_id": getattr(special, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    wanted = {**DENSE, **fields}
    if "rope_parameters" in wanted:
        half = wanted["head_dim"] // 2
        rope = wanted["rope_parameters"]
        wanted["rope_parameters"] = {**rope, **{name: rope[name][:half] for name in ("short_factor", "long_factor")}}
    config = AutoConfig.for_model(family, **{**wanted, **ids})
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=1.5 * parameter.shape[-1] ** -0.5)
    return model.eval()


Found = tuple[Tensor, Tensor]
"""Log-probs of the trained tokens, and the gradient of their mean as one long vector; both float32."""


def of_plain(model: Any, batch: Batch) -> Found:
    """By transformers' own forward pass over each document alone."""
    logps = []
    for tokens_T, segment in zip(documents(batch), batch.completions, strict=True):
        logits_TV = model(input_ids=tokens_T[None], use_cache=False).logits[0, :-1].float()
        logps_T = torch.log_softmax(logits_TV, dim=-1).gather(1, tokens_T[1:, None])[:, 0]
        logps.append(logps_T[segment.prefix_length - 1 :])
    values = torch.cat(logps)
    gradients = torch.autograd.grad(values.mean(), list(model.parameters()), allow_unused=True)
    return values.detach(), flattened(gradients, list(model.parameters()))


def of_packed(model: Any, batch: Batch, precision: str) -> tuple[Found, str, str]:
    """(what was found, the attention that was taken, how rows are read) by the project, as it trains."""
    policy, learner = learner_of(model, precision)
    logps_N = policy.logps(batch)
    learner.parallel.backward(logps_N.mean(), last=True)
    masters = parameters_of(learner.optimizer)
    # Once more to look on, since what is compared should be computed as in training.
    with Kernels() as seen, torch.no_grad():
        policy.logps(batch)
    return (
        (logps_N.detach().float(), flattened([master.grad for master in masters], masters)),
        seen.attention,
        policy.module.trunk.rows,
    )


def learner_of(model: Any, precision: str, **fields: Any) -> tuple[Policy, Learner]:
    """A policy with its optimizer, as a stage of the given precision sets it up."""
    policy = Policy(model, tokenizer())
    start_training(policy.module)
    stage = section(precision, **fields)
    return policy, Learner(policy, stage, Parallel(stage))


def section(precision: str, **fields: Any) -> Sft:
    """The recipe's section of the checks that train."""
    usual = {"max_length": 2048, "batch": 8, "steps": 100, "learning_rate": 2e-3, "clip_norm": 1.0, "adam_epsilon": 1e-6}
    return Sft(**{"data": (Source(name="made", fraction=1.0),), **usual, "precision": precision, **fields})


def flattened(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    """Gradients as one float32 vector; a weight without one counts as zeros."""
    pairs = zip(gradients, like, strict=True)
    return torch.cat([(torch.zeros_like(each) if gradient is None else gradient).float().flatten() for gradient, each in pairs])


def compare(found: Found, truth: Found) -> dict[str, float]:
    """How far both are from the truth."""
    distance = (found[1] - truth[1]).norm() / truth[1].norm()
    cosine = nn.functional.cosine_similarity(found[1].double(), truth[1].double(), dim=0)
    return {
        "logp": float((found[0] - truth[0]).abs().mean()),
        "gradient_distance": float(distance),
        "gradient_cosine": float(cosine),
    }


class Kernels(TorchDispatchMode):
    """Keeps which kernels of attention were called while the context lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if "scaled_dot_product" in name:
            self.names.add("sdpa")
        elif "varlen" in name or "flash" in name:
            self.names.add("flash")
        return func(*args, **(kwargs or {}))

    @property
    def attention(self) -> str:
        """The kernels, empty where scores were computed as they are defined."""
        return ", ".join(sorted(self.names))


# -- training ----------------------------------------------------------------------------------------------------------


def lessons(count: int = 8) -> list[Group]:
    """Rows that can be learned: a completion says its prompt once more."""
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(0, 32, (6 + number % 5,), generator=generator).tolist() for number in range(count)]
    return [Group(prompt, (Completion(prompt, [True] * len(prompt)),), f"row:{n}") for n, prompt in enumerate(prompts)]


def trained(device: torch.device, precision: str, steps: int, begin: Callable[[Learner], int] | None = None) -> Any:
    """(learner, losses) after so many steps; `begin` may load a checkpoint and says how many steps it holds."""
    fields = {"num_hidden_layers": 2}
    policy, learner = learner_of(tiny_model("olmo2", fields, device, seed=0 if begin is None else 1), precision)
    first = begin(learner) if begin else 0
    groups, losses = lessons(), []
    for _ in range(first, steps):
        batches = pack_whole(groups, section(precision))
        found = step(learner, batches, lambda batch: sft_loss(policy.logps(batch)), count_tokens)
        losses.append(found["loss"])
    return learner, losses


def weights(learner: Learner) -> list[Tensor]:
    """The masters, by value."""
    return [master.detach().clone() for master in parameters_of(learner.optimizer)]


def precisions(device: torch.device, steps: int) -> Figures:
    """The same training in float32, bf16 and fp16 learns as much: the last losses are within a tenth of what was learned."""
    ends = {}
    for precision in ("fp32", "bf16", *(("fp16",) if device.type == "cuda" else ())):
        losses = trained(device, precision, steps)[1]
        ends[precision] = [round(losses[0], 5), round(losses[-1], 5)]
    learned = ends["fp32"][0] - ends["fp32"][1]
    figures = {"first and last loss": ends}
    if not learned > 0.2 * ends["fp32"][0]:
        raise Failed(f"float32 itself learned only {learned:.3f}", figures)
    for precision, (_, last) in ends.items():
        if not abs(last - ends["fp32"][1]) <= 0.1 * learned:
            raise Failed(f"{precision} ends at {last:.4f}, float32 at {ends['fp32'][1]:.4f}", figures)
    return figures


def resume(device: torch.device) -> Figures:
    """Four steps in bf16, and two, a checkpoint and two more in a model that began with other weights: the same bits.

    Some kernels add up in no fixed order unless torch is asked for one. If even a run that is not interrupted gives other bits
    the second time, the check fails and says so.
    """
    with repeatable():
        straight, again = (weights(trained(device, "bf16", 4)[0]) for _ in range(2))
        with tempfile.TemporaryDirectory() as folder:
            trained(device, "bf16", 2)[0].parallel.save(Path(folder))

            def load(learner: Learner) -> int:
                learner.parallel.load(Path(folder))
                return 2

            resumed = weights(trained(device, "bf16", 4, load)[0])
    figures = {"two runs differ by": largest(straight, again), "a resumed one differs by": largest(straight, resumed)}
    if figures["a resumed one differs by"]:
        own = "; but so do those of a run that is not interrupted" if figures["two runs differ by"] else ""
        raise Failed(f"weights differ by {figures['a resumed one differs by']:.1e}{own}", figures)
    return figures


@contextmanager
def repeatable() -> Iterator[None]:
    """Let kernels add up in a fixed order while the context lasts, where torch has one that does."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def largest(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The largest difference of two lists of tensors."""
    return max(float((one - other).abs().max()) for one, other in zip(some, others, strict=True))
