"""What is written down of released models and data sets: complete, from a named source, and right where it can be checked."""

from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from tulu.config import known
from tulu.config.job import stages_of
from tulu.config.known import known_data, known_mix, known_model
from tulu.config.load import built_in, load_recipe
from tulu.config.schema import Rlvr, TrainStage
from tulu.config.sizes import model_size

RECIPES = [path.stem for path in built_in() if path.stem != "quickstart"]
PUBLISHED = {
    "allenai/OLMo-2-0425-1B": 1.48e9,
    "allenai/OLMo-2-1124-7B": 7.30e9,
    "allenai/OLMo-2-1124-13B": 13.7e9,
    "allenai/OLMo-2-0325-32B": 32.2e9,
    "allenai/OLMoE-1B-7B-0125": 6.92e9,
    "allenai/Olmo-3-1025-7B": 7.30e9,
    "allenai/Olmo-3-1125-32B": 32.2e9,
    "meta-llama/Llama-3.1-8B": 8.03e9,
    "meta-llama/Llama-3.1-70B": 70.6e9,
    "meta-llama/Llama-3.1-405B": 406e9,
}
"""Parameters as the models' pages on the hub state them."""


def sections(name: str) -> list[TrainStage]:
    return [stage.section for stage in stages_of(load_recipe(name, processes=1))]


@pytest.mark.parametrize("name", RECIPES)
def test_every_model_of_a_recipe_is_known(name: str) -> None:
    recipe = load_recipe(name, processes=1)
    values = [section.value for section in sections(name) if isinstance(section, Rlvr) and section.value is not None]
    models = {recipe.model, *(section.released for section in sections(name)), *(value.released for value in values)} - {None}
    assert [model for model in models if known_model(model) is None] == []


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_parameters_are_the_published_ones(name: str, parameters: float) -> None:
    size = model_size(name)
    assert size is not None
    assert size.parameters == pytest.approx(parameters, rel=0.005)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("olmo2", "allenai/OLMo-2-0425-1B"),
        ("olmoe", "allenai/OLMoE-1B-7B-0125"),
        ("olmo_hybrid", "allenai/Olmo-Hybrid-7B"),
        ("llama", "meta-llama/Llama-3.1-8B"),
    ],
)
def test_parameters_are_those_of_transformers(family: str, name: str) -> None:
    entry, size = known_model(name), model_size(name)
    assert entry is not None
    assert size is not None
    config = {key: value for key, value in entry.config.items() if key != "layer_pattern"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config))
    assert size.parameters == pytest.approx(model.num_parameters(), rel=0.001)


def test_the_hybrid_is_transformers_default() -> None:
    entry, default = known_model("allenai/Olmo-Hybrid-7B"), AutoConfig.for_model("olmo_hybrid")
    assert entry is not None
    assert {key: getattr(default, key) for key in entry.config if key != "layer_pattern"} == {
        key: value for key, value in entry.config.items() if key != "layer_pattern"
    }


def test_olmo3_sees_a_window_in_three_of_four_layers() -> None:
    size = model_size("allenai/Olmo-3-1025-7B")
    assert size is not None
    assert size.windows == ((4096, 24), (None, 8))


def test_every_entry_has_a_source_and_a_length_or_none() -> None:
    table = yaml.safe_load(Path(known.__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    names = [name for part in ("models", "data") for row in table[part] for name in row["names"]]
    assert len(names) == len(set(names)), "no name stands twice"
    assert all(row["source"] for part in ("models", "data") for row in table[part])
    for row in table["data"]:
        entry = known_data(row["names"][0])
        assert entry is not None
        assert entry.tokens is None or 100 < entry.tokens < 10_000
    assert all(known_data(row["as"]) for row in table["mixes"])


def test_lengths_follow_from_bytes() -> None:
    pairs, sequences = known_data("allenai/olmo-2-0325-32b-preference-mix"), known_data("allenai/tulu-3-sft-mixture")
    assert pairs is not None
    assert sequences is not None
    # 2,376,827,957 bytes / 377,809 rows / 2 conversations / 4 bytes
    assert pairs.tokens == pytest.approx(786.4, abs=0.1)
    assert sequences.tokens == pytest.approx(775.6, abs=0.1)


def test_a_mix_is_known_by_all_its_names_alone() -> None:
    table = yaml.safe_load(Path(known.__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    names = table["mixes"][0]["of"]
    assert known_mix(list(reversed(names))) == known_data(table["mixes"][0]["as"])
    assert known_mix(names[1:]) is None
    assert known_mix([]) is None
