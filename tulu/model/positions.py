"""How long a document a model of transformers can read, and the refusal of a recipe that asks for more."""

from typing import Any

from tulu.config import positions
from tulu.errors import RecipeError


def longest_document(config: Any) -> int | None:
    """Most tokens of a document that a model has positions for; None where it says none, or knows no positions."""
    return positions.longest_document(_entries(config))


def check_length(length: int, fields: str, config: Any, name: str) -> None:
    """Raise RecipeError if the fields of a recipe ask for longer documents than a model has positions for."""
    if problem := positions.length_problem(length, fields, _entries(config), name):
        raise RecipeError(problem)


def _entries(config: Any) -> dict[str, Any]:
    """The entries of a configuration, whatever name its family has for the number of positions."""
    text = config.get_text_config()
    return {**text.to_dict(), "max_position_embeddings": getattr(text, "max_position_embeddings", None)}
