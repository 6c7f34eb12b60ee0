"""Options that are meant as overrides of a recipe: `--sft.batch=3` and `--batch 3` are written sft.batch=3."""

from collections.abc import Sequence


def meant_as_override(command: str, option: str, words: Sequence[str]) -> str | None:
    """What to write in place of an option that the command does not have; None where it is no field of a recipe.

    `words` are those of the command line, in which the value of the option stands.
    """
    from tulu.config.mistakes import section_at
    from tulu.config.schema import Recipe
    from tulu.config.stages import STAGES

    fields = {stage: section.model_fields for stage in STAGES if (section := section_at((stage,))) is not None}
    key = option.lstrip("-")
    plain = key.replace("-", "_")
    keys = [plain] if "." in key else []
    if not keys:
        apart = [f"{stage}.{plain.removeprefix(f'{stage}_')}" for stage in fields if plain.startswith(f"{stage}_")]
        keys = [plain] if plain in Recipe.model_fields else apart
        keys = keys or [f"{stage}.{plain}" for stage, known in fields.items() if plain in known]
    if command in fields:
        keys = [key for key in keys if key.startswith(f"{command}.")] or keys
    if not keys:
        return None
    written = [f"{key}={_value_of(option, words)}" for key in keys]
    return f"{option}: overrides are written {written[0]}, without dashes" + (
        f" (or {', '.join(written[1:])})" if written[1:] else ""
    )


def names_a_recipe(words: Sequence[str]) -> bool:
    """Whether the first argument among these words of a command line is a recipe, where it may be a model as well."""
    from tulu.config.load import is_built_in

    pairs = zip(("", *words), words, strict=False)
    first = next((word for before, word in pairs if word[:1] != "-" and ("=" in before or before[:2] != "--")), "")
    return first.endswith((".yaml", ".yml")) or is_built_in(first)


def _value_of(option: str, words: Sequence[str]) -> str:
    """The value of an option on a command line, VALUE where none follows."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option:
            following = words[place + 1] if place + 1 < len(words) else "-"
            return value if equals else "VALUE" if following.startswith("-") else following
    return "VALUE"
