"""What a recipe sets for its verifiers reaches them, and is checked as the rest of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tulu.config.load import load_recipe
from tulu.config.parts import VerifierSettings
from tulu.errors import RecipeError
from tulu.verifiers.contract import NO_SETTINGS, Settings

RLVR = {
    **{"data": {"name": "sums:train", "count": 8}, "max_prompt": 8, "max_tokens": 8, "max_length": 16, "steps": 1},
    **{"prompts": 2, "samples": 2, "batch": 4, "learning_rate": 1e-3},
}


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Callable[..., Path]) -> Callable[..., str]:
    def written(**fields: Any) -> str:
        file = tmp_path / "settings.yaml"
        file.write_text(yaml.safe_dump({"name": "x", "model": str(tiny_model("olmo2")), "rlvr": {**RLVR, **fields}}))
        return str(file)

    return written


def test_every_setting_reaches_the_verifiers() -> None:
    given: dict[str, Any] = {
        "code_threshold": 0.99,
        "code_seconds": 6.0,
        "judge_model": "m",
        "judge_seconds": 600.0,
        "judge_tokens": 2048,
    }
    assert VerifierSettings(**given).settings == Settings(**given)
    assert VerifierSettings().settings == NO_SETTINGS
    assert set(VerifierSettings.model_fields) == set(Settings.__dataclass_fields__)


def test_a_judge_is_named_by_the_recipe_or_the_environment(recipe: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TULU_JUDGE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.delenv("TULU_JUDGE_MODEL", raising=False)
    with pytest.raises(RecipeError, match="TULU_JUDGE_MODEL"):
        load_recipe(recipe(verifier="llm_judge"))
    loaded = load_recipe(recipe(verifier="llm_judge", verifier_settings={"judge_model": "qwen3-32b"}))
    assert loaded.rlvr is not None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"verifier_settings": {"code_threshold": 1.5}}, "rlvr.verifier_settings.code_threshold: 1.5: should be less than"),
        ({"verifier_settings": {"code_seconds": 0.0}}, "rlvr.verifier_settings.code_seconds"),
        ({"verifier_settings": {"code_treshold": 0.9}}, "did you mean code_threshold?"),
        ({"retire_at": 0.0}, "rlvr.retire_at"),
        ({"drop_equal": True, "samples": 1, "batch": 2, "advantage": "gae", "value": {}, "refill": False}, "rlvr.drop_equal"),
    ],
)
def test_what_cannot_be(recipe: Callable[..., str], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe(**fields))
    assert message in str(error.value)
