"""Tiny models of every supported family, made on the spot, and the shared data where it is present."""

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

COMMON = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "max_position_embeddings": 512}
FAMILIES: dict[str, dict[str, Any]] = {
    "olmo2": {"num_hidden_layers": 2, "num_key_value_heads": 4},
    # Four layers, so that three slide and the last attends to everything.
    "olmo3": {"num_hidden_layers": 4, "num_key_value_heads": 2, "sliding_window": 6},
    "olmoe": {"num_hidden_layers": 2, "num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2},
    "qwen3": {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 8},
    "llama": {"num_hidden_layers": 2, "num_key_value_heads": 1},
    "olmo_hybrid": {
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 16,
    },
}
"""What each family's tiny configuration adds to COMMON."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    """Who runs what where several workers share the tests; None is xdist's own way."""
    from tests.workers import ByFile

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_configure() -> None:
    """Let signals end what tests start, also where these tests were started in the background (&, nohup), which ignores some."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what was imported and collected: it stays, and libraries ask for a look at all."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """At its end the interpreter takes all of it apart."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("TULU_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("the shared data is absent: set TULU_SHARED to the folder that holds data/")
    return folder


def make_tiny_model(folder: Path, family: str = "olmo2", seed: int = 0, template: bool = True, **config: Any) -> Path:
    """A random model of a family with the byte tokenizer, saved as a Hugging Face folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tulu.data.chat import apply_template, make_byte_tokenizer

    tokenizer = make_byte_tokenizer()
    fields = {**COMMON, **FAMILIES[family], "vocab_size": len(tokenizer), **config}
    settings = AutoConfig.for_model(
        family,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **fields,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
        for parameter in model.parameters():
            # Larger than usual weights, so that log-probs vary and a mistake shows.
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    if template:
        apply_template(tokenizer, "tulu")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny_model(family, seed, **config) -> folder of a random model; the same arguments give the same folder."""
    made: dict[str, Path] = {}

    def make(family: str = "olmo2", seed: int = 0, **config: Any) -> Path:
        key = repr((family, seed, sorted(config.items())))
        if key not in made:
            made[key] = make_tiny_model(tmp_path_factory.mktemp(family), family, seed, **config)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_reward_model(tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny_reward_model(family, seed, **config) -> folder that AutoModelForSequenceClassification loads; the head is random."""
    from tulu.reward_models.model import RewardModel

    made: dict[str, Path] = {}

    def make(family: str = "olmo2", seed: int = 0, **config: Any) -> Path:
        key = repr((family, seed, sorted(config.items())))
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"rm-{family}")
            RewardModel.load(tiny_model(family, seed, **config), new_head=seed).save(made[key])
        return made[key]

    return make
