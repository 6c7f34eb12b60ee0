"""Where each value of a recipe comes from, read from the comments of its file."""

from collections.abc import Callable

import pytest
import yaml
from typer.testing import CliRunner

from tulu.cli import app
from tulu.config.load import dump, load_recipe
from tulu.config.provenance import Origin, origins
from tulu.config.yaml_text import annotate

RECIPE = """\
name: test
model: owner/model # card of owner/model @ 0123456
template: tulu
sft: # docs/a.md @ 0123456
  data: # the mix
    - {name: rows.jsonl, fraction: 1.0} # said twice
  max_length: 64
  # a line of its own belongs to no field
  batch: 16 # 8 GPUs × 2
  micro_batch: 4 # ours: for memory
  epochs: 1 # ours
  learning_rate: 1e-4 # scripts/b.sh @ 89abcdef
  lora:
    rank: 8 # arXiv 2106.09685
    alpha: 16
  released_values:
    packing: true # "quoted # text"
dpo:
  data:
    - {name: owner/pairs, fraction: 0.5} # scripts/c.sh @ 89abcdef
  released: owner/model-sft
  max_length: 64
  batch: 16 # not in doubt
  steps: 3
  learning_rate: 5e-7 # swept
rm: # ours: docs/d.md @ 0123456 stands in
  data:
    - {name: owner/pairs, fraction: 1.0}
  max_length: 64
  batch: 16 # scripts/e.sh @ 89abcdef
  steps: 3 # ours: short
  learning_rate: 3e-6
  lora: # arXiv 2106.09685
    rank: 8
unknown:
  - dpo.learning_rate: swept, and not recorded
"""
EXPECTED = {
    "model": Origin("released", "card of owner/model @ 0123456"),
    "template": Origin("recipe"),
    "sft.data": Origin("released", "docs/a.md @ 0123456: the mix"),
    "sft.max_length": Origin("released", "docs/a.md @ 0123456"),
    "sft.batch": Origin("command line"),
    "sft.micro_batch": Origin("ours", "for memory"),
    "sft.epochs": Origin("ours"),
    "sft.learning_rate": Origin("released", "scripts/b.sh @ 89abcdef"),
    "sft.lora.rank": Origin("released", "arXiv 2106.09685"),
    "sft.lora.alpha": Origin("released", "docs/a.md @ 0123456"),
    "sft.lora.dropout": Origin("default"),
    "sft.released_values.packing": Origin("released", 'docs/a.md @ 0123456: "quoted # text"'),
    "sft.seed": Origin("default"),
    "dpo.data": Origin("released", "scripts/c.sh @ 89abcdef"),
    "dpo.batch": Origin("recipe", "not in doubt"),
    "dpo.learning_rate": Origin("unknown", "swept, and not recorded"),
    # What a section of ours takes from a source is a stand-in, and no release.
    "rm.data": Origin("ours", "docs/d.md @ 0123456 stands in"),
    "rm.batch": Origin("ours", "docs/d.md @ 0123456 stands in: scripts/e.sh @ 89abcdef"),
    "rm.steps": Origin("ours", "short"),
    "rm.lora.rank": Origin("ours", "docs/d.md @ 0123456 stands in"),
    "rm.lora.alpha": Origin("default"),
    "rm.seed": Origin("default"),
}


@pytest.mark.parametrize("key", EXPECTED)
def test_origin_of_a_field(write: Callable[[str], str], key: str) -> None:
    name = write(RECIPE)
    overrides = ["sft.batch=8"]
    assert origins(name, load_recipe(name, overrides), overrides)[key] == EXPECTED[key]


def test_every_field_has_an_origin(write: Callable[[str], str]) -> None:
    name = write(RECIPE)
    recipe = load_recipe(name)
    found = origins(name, recipe)
    dumped = yaml.safe_load(dump(recipe))
    assert {key for key in found if key.count(".") == 1 and key.startswith("dpo.")} == {f"dpo.{key}" for key in dumped["dpo"]}
    assert set(dumped) - set(found) == {"unknown", "sft", "dpo", "rm"}


def test_the_annotated_recipe_is_the_same_recipe(write: Callable[[str], str]) -> None:
    name = write(RECIPE)
    recipe = load_recipe(name)
    text = annotate(dump(recipe), {key: str(origin) for key, origin in origins(name, recipe).items()})
    assert "  learning_rate: 0.0001  # released: scripts/b.sh @ 89abcdef\n" in text
    assert load_recipe(write(text)) == recipe


def test_a_dry_run_prints_them(write: Callable[[str], str]) -> None:
    output = CliRunner().invoke(app, ["sft", write(RECIPE), "--dry-run"]).output
    assert "micro_batch: 4  # ours: for memory" in output
    assert "dpo:" not in output
