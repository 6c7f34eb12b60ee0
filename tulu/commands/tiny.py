"""What `--tiny` does before a command runs: it makes the tiny model and the rows, and says what is not the recipe's own."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tulu.commands.boundary import LASTING
from tulu.commands.made_up_judge import judge
from tulu.config.job import section_of
from tulu.config.load import load_recipe
from tulu.config.recipe_stages import stages_in
from tulu.config.templates import OWN
from tulu.config.tiny import Tiny, kept, shrink
from tulu.files import json_lines, make_folder

log = logging.getLogger("tulu")

_MADE = "made.json"
"""The file that says of what the inputs were made; it is written last."""


def tiny_overrides(name: str, overrides: Sequence[str], runs: Path, stage: str | None = None) -> list[str]:
    """The overrides that make a recipe its tiny recipe, whose inputs are made now; those of the command line come last.

    While the command lasts, a judge answers in this process. Raises RecipeError where the recipe has no such stage.
    """
    recipe = load_recipe(name, overrides, processes=1)
    if stage is not None and not any(one.row.name == stage for one in stages_in(dict(recipe))):
        section_of(recipe, stage)
    tiny = shrink(recipe, runs, overrides)
    log.info("%s is %s with these differences:", tiny.name, recipe.name)
    for line in tiny.changes:
        log.info("  %s", line)
    log.info("  everything else is the recipe's own; the model and the rows are in %s", tiny.inputs)
    make_inputs(tiny)
    LASTING.get().enter_context(judge())
    return [*tiny.overrides, *kept(overrides)]


def make_inputs(tiny: Tiny) -> None:
    """Write the folder of model and rows, unless it is there already.

    Each process may do so at the same time: the folder appears whole, and all would write the same.
    """
    key = _key(tiny)
    if _key_of(tiny.inputs) == key:
        return
    with _beside(tiny.inputs) as partial:
        _write(tiny, partial)
        (partial / _MADE).write_text(json.dumps({"key": key}))
        if tiny.inputs.exists() and _key_of(tiny.inputs) != key:
            shutil.rmtree(tiny.inputs, ignore_errors=True)
        try:
            partial.rename(tiny.inputs)
        except OSError:
            if _key_of(tiny.inputs) != key:
                raise


def _write(tiny: Tiny, folder: Path) -> None:
    from tulu.data.made_up import answers, made_up_rows
    from tulu.model.made_up import make_model, make_tokenizer

    for rows in tiny.rows:
        (folder / rows.file).write_text(json_lines(made_up_rows(rows)), encoding="utf-8")
    if tiny.model is None:
        return
    texts = [] if tiny.bytes_alone else answers([rows.form for rows in tiny.rows if rows.form is not None])
    tokenizer = make_tokenizer(texts, tiny.template, tiny.template_name, bytes_alone=tiny.bytes_alone)
    make_model(tiny.model, tokenizer, texts, folder / "model")
    for seed, name in enumerate(tiny.others, 2):
        make_model(tiny.model, tokenizer, texts, folder / name, seed)
    if tiny.reward_model:
        from tulu.reward_models.model import RewardModel

        RewardModel.load(folder / "model", template=OWN, new_head=1).save(folder / "reward-model")


def _key(tiny: Tiny) -> str:
    """A hash of what the inputs are made of, and of the files that make them."""
    from tulu.config import made_up as architectures
    from tulu.data import made_up as rows

    model = Path(rows.__file__).parents[1] / "model" / "made_up.py"
    code = [Path(architectures.__file__), Path(rows.__file__), model]
    content = [tiny.rows, tiny.model, tiny.template, tiny.template_name, tiny.reward_model, tiny.others, tiny.bytes_alone]
    digest = hashlib.blake2b(repr(content).encode(), digest_size=16)
    for file in code:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _key_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / _MADE).read_text())["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A new folder beside this one, which is gone afterwards unless it was renamed."""
    partial = folder.with_name(f".{folder.name}-{os.getpid()}")
    make_folder(partial)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
