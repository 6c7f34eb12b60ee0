"""How long a document a model can read by its configuration, and how long those of a stage are."""

from collections.abc import Mapping
from typing import Any

from tulu.config.options import USUAL_ANSWER
from tulu.config.schema import Evaluate, Rlvr, TrainStage

NO_LIMIT = 1 << 20
"""Tokens that a model is taken to read whose configuration states no positions."""


def longest_document(config: Mapping[str, Any]) -> int | None:
    """Most tokens of a document that a model has positions for; None where it says none, or knows no positions.

    `config` has the entries of a config.json. A model with learned positions has no more of them. One with rotary positions
    computes on, but beyond the lengths that it was made for its log-probs are noise, unless a rotary scaling stretches them: some
    configurations state the length before scaling and some the length after it, so the larger is taken.
    """
    text = config.get("text_config") or config
    most = text.get("max_position_embeddings", text.get("n_positions"))
    if not isinstance(most, int) or text.get("alibi"):
        return None
    stretched = [most]
    for parameters in (text.get("rope_parameters") or {}, text.get("rope_scaling") or {}):
        for rope in [parameters, *(value for value in parameters.values() if isinstance(value, dict))]:
            if rope.get("rope_type", rope.get("type", "default")) != "default" and rope.get("factor"):
                stretched.append(int(rope["factor"] * (rope.get("original_max_position_embeddings") or most)))
    return max(stretched)


def usual_answer(usual: int, most: int | None) -> int:
    """Most tokens of an answer where nobody gave a number: the usual one, but never more than half of a model's positions."""
    return usual if most is None else min(usual, max(1, most // 2))


def is_rotary(config: Mapping[str, Any]) -> bool:
    """Whether its positions are rotary and could be stretched."""
    text = config.get("text_config") or config
    return bool(text.get("rope_parameters") or text.get("rope_theta"))


def longest_of(stage: TrainStage, key: str) -> tuple[int, str]:
    """Most tokens of a document that a stage reads, and the fields of the recipe that say so."""
    if isinstance(stage, Rlvr):
        return stage.max_prompt + stage.max_tokens, f"{key}.max_prompt + {key}.max_tokens"
    return stage.max_length, f"{key}.max_length"


def answer_problem(settings: Evaluate, config: Mapping[str, Any], name: str) -> str | None:
    """What is wrong where a recipe's number of tokens of an answer leaves no position to a prompt."""
    most = longest_document(config)
    if most is None or "max_tokens" not in settings.model_fields_set or settings.max_tokens < most:
        return None
    return (
        f"evaluate.max_tokens: {settings.max_tokens} tokens, but {name} has {most} positions (max_position_embeddings), for "
        f"prompt and answer\nLower evaluate.max_tokens, or leave it out: then it is {usual_answer(USUAL_ANSWER, most)}."
    )


def length_problem(length: int, fields: str, config: Mapping[str, Any], name: str) -> str | None:
    """What is wrong where the fields of a recipe ask for longer documents than a model has positions for."""
    most = longest_document(config)
    if most is None or length <= most:
        return None
    other = ", or state a rotary scaling in the model's configuration (rope_parameters)" if is_rotary(config) else ""
    cure = f"Lower {fields} to {most} or less, or choose a model with more positions{other}."
    return f"{fields}: {length} tokens, but {name} has {most} positions (max_position_embeddings)\n{cure}"
