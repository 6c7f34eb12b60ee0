"""A base model whose chat template ends turns with another token than its end-of-text token stops once it is trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import yaml
from transformers import AutoTokenizer, GenerationConfig
from typer.testing import CliRunner

from tulu.cli import app
from tulu.model.generation import turn_end_tokens
from tulu.model.load import load_tokenizer
from tulu.rollout.engine import EngineSpec
from tulu.rollout.transformers_engine import TransformersEngine

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRAIN = {"max_length": 64, "batch": 4, "steps": 40, "learning_rate": 1e-2, "precision": "fp32"}


def test_a_base_model_that_learnt_chatml_stops_in_evaluation_and_in_what_is_saved(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_model("llama", vocab_size=260), tmp_path / "base"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(base)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "one", "completion": "two"}\n' * 8)
    (tmp_path / "problems.jsonl").write_text('{"prompt": "one", "ground_truth": "two", "dataset": "exact"}\n')
    sections = {
        "sft": {**TRAIN, "data": str(tmp_path / "rows.jsonl")},
        "evaluate": {"task": "mine", "data": str(tmp_path / "problems.jsonl"), "engine": "transformers", "max_tokens": 16},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "chatml", "model": str(base), **sections}))
    result = CliRunner().invoke(app, ["run", str(recipe), "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output

    model = tmp_path / "runs" / "chatml" / "sft" / "model"
    assert GenerationConfig.from_pretrained(model).eos_token_id == [256, 259]
    assert TransformersEngine.load(EngineSpec(str(model), 64, version=0)).stop_tokens == [256, 259]
    answers = tmp_path / "runs" / "chatml" / "evaluate" / "sft" / "answers.jsonl"
    answer = json.loads(answers.read_text())
    assert (answer["completion"], answer["finish"], answer["score"]) == ("two", "stop", 1.0)


def test_the_recipes_template_stops_a_model_whose_folder_has_another(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """A policy samples with the recipe's template, while the engine's own tokenizer comes from the folder."""
    base = Path(shutil.copytree(tiny_model("llama", vocab_size=260), tmp_path / "base"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(base)
    assert TransformersEngine.load(EngineSpec(str(base), 64, version=0)).stop_tokens == [256]
    olmo = load_tokenizer(base, "olmo")
    spec = EngineSpec(str(base), 64, version=0, turn_ends=turn_end_tokens(olmo))
    assert TransformersEngine.load(spec).stop_tokens == [256, 259]
