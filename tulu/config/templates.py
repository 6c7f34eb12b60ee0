"""Chat templates that have a name, and those of a recipe's own in a `.jinja` file.

One user turn and its answer are rendered as follows, where EOS stands for the tokenizer's end token:

    tulu    <|user|>\\n1+1=?\\n<|assistant|>\\n2EOS
    olmo    (a system turn, where the conversation has none)<|im_start|>user\\n1+1=?<|im_end|>\\n<|im_start|>assistant\\n2EOS

docs/templates.md lists all of them.
"""

import hashlib
import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from tulu.errors import RecipeError

_FOLDER = Path(__file__).parent
SUFFIX = ".jinja"
"""How the name of a template ends that is a file of the recipe's own."""


def _composed(text: str, bos: bool = False, **values: Any) -> str:
    """A template's source: one line for each value that its text reads, and the text."""
    settings = "".join(f"{{%- set {name} = {_literal(value)} %}}\n" for name, value in values.items())
    body = (_FOLDER / "jinja" / f"{text}{SUFFIX}").read_text(encoding="utf-8")
    return ("{{ bos_token }}" if bos else "") + settings + body


def _literal(value: Any) -> str:
    """A value in Jinja, which spells texts, lists and objects as JSON does, and reads true and false."""
    return json.dumps(value)


def _named() -> dict[str, str]:
    table = yaml.load((_FOLDER / "templates.yaml").read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {name: _composed(**row) for name, row in table.items()}


TEMPLATES: dict[str, str] = _named()
"""The sources of the named templates. They render as the templates of open-instruct and of AI2's tokenizers do."""
OWN = "tokenizer"
"""The name of the template that the tokenizer brings along; `tokenizer:NAME` where it brings several."""
_NO_TEMPLATES = {
    "olmo123": "it is no template's name in open-instruct either, which then takes the tokenizer's own; write "
    "olmo-3-tokenizer-instruct-dev (Olmo 3 Instruct), or tokenizer",
    "assistant_message_only": "it leaves the questions out, so no conversation can be trained with it",
}
"""Names that open-instruct's scripts use, and why they are not here."""


def name_problem(name: str) -> str | None:
    """What is wrong with the name of a template that is no file."""
    if name in TEMPLATES or name == OWN or name.startswith(f"{OWN}:"):
        return None
    if name in _NO_TEMPLATES:
        return f"unknown template: {_NO_TEMPLATES[name]}"
    known = f"known are {', '.join(TEMPLATES)}, {OWN}, and files that end in {SUFFIX}"
    near = get_close_matches(name, [*TEMPLATES, OWN], n=1)
    return f"unknown template; did you mean {near[0]}? {known}" if near else f"unknown template; {known}"


def template_problem(name: str) -> str | None:
    """What is wrong with a template: no such name or file, or a file that renders no conversation."""
    if not name.endswith(SUFFIX):
        return name_problem(name)
    # Jinja is only needed for templates that are read from files.
    from tulu.config.template_file import file_problem

    return file_problem(Path(name))


def source_of(name: str) -> str | None:
    """The source of a named template or of a file; None for one that the tokenizer brings. Raises RecipeError."""
    if problem := template_problem(name):
        raise RecipeError(f"template: {name}: {problem}")
    return Path(name).expanduser().read_text(encoding="utf-8") if name.endswith(SUFFIX) else TEMPLATES.get(name)


def hash_problem(source: str | None, expected: str | None) -> str | None:
    """Why a template is not the one that a recipe pins; None where it is, and where either is unknown."""
    if source is None or expected is None or (found := source_hash(source)) == expected:
        return None
    return f"the template's hash is {found}, so its text is another than the recipe was made with; take that one, or pin {found}"


def source_hash(source: str) -> str:
    """First 16 hex digits of the SHA-256 of a template's source: what `template_hash` of a recipe pins."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]
