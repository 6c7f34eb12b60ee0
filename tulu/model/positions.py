"""How long a document a model can read, and the refusal of a recipe that asks for more."""

from typing import Any

from tulu.errors import RecipeError


def longest_document(config: Any) -> int | None:
    """Most tokens of a document that a model has positions for; None where it says none, or knows no positions.

    A model with learned positions has no more of them. One with rotary positions computes on, but beyond the lengths that it
    was made for its log-probs are noise, unless a rotary scaling stretches them: some configurations state the length before
    scaling and some the length after it, so the larger is taken.
    """
    text = config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    if not isinstance(most, int) or getattr(text, "alibi", False):
        return None
    stretched = [most]
    parameters = getattr(text, "rope_parameters", None) or {}
    for rope in [parameters, *(value for value in parameters.values() if isinstance(value, dict))]:
        if rope.get("rope_type", "default") != "default" and rope.get("factor"):
            stretched.append(int(rope["factor"] * (rope.get("original_max_position_embeddings") or most)))
    return max(stretched)


def check_length(length: int, fields: str, config: Any, name: str) -> None:
    """Raise RecipeError if the fields of a recipe ask for longer documents than a model has positions for."""
    most = longest_document(config)
    if most is not None and length > most:
        rotary = bool(getattr(config.get_text_config(), "rope_parameters", None))
        other = ", or state a rotary scaling in the model's configuration (rope_parameters)" if rotary else ""
        cure = f"Lower {fields} to {most} or less, or choose a model with more positions{other}."
        raise RecipeError(f"{fields}: {length} tokens, but {name} has {most} positions (max_position_embeddings)\n{cure}")
