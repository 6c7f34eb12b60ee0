"""Templates in files of a recipe's own: read, compiled and tried on a conversation, without torch.

transformers renders them later, in the same dialect of Jinja (`_environment`). It imports torch, so what does not render is found
here, before anything is loaded.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

_TOKENS = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk", "sep", "cls", "mask")}


def file_problem(path: Path) -> str | None:
    """Why a file is no template: it is not there, or renders no conversation."""
    try:
        return _problem(path.expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "no such file; correct the path (it begins where the recipe lies, that of an override here)"
    except (OSError, UnicodeDecodeError) as error:
        return f"cannot be read ({error}); a template is a text in UTF-8"


def _problem(source: str) -> str | None:
    """Where and why a template does not render a short conversation; None where it does."""
    try:
        template = _environment().from_string(source)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: is no Jinja: {error.message}; correct it"
    refusals = []
    for chat in _trials():
        try:
            texts = [
                template.render(messages=chat, tools=None, add_generation_prompt=asked, **_TOKENS) for asked in (False, True)
            ]
        except RecursionError:
            return "does not render a conversation: it calls itself without end; correct it"
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            refusals.append(f"{_line(error)}does not render a conversation of one question and its answer: {error}; correct it")
            continue
        if any("answer" in text for text in texts):
            return None
        refusals.append("leaves out what the assistant says; write message['content'] of the assistant's turns")
    return refusals[0]


def _trials() -> Iterator[list[dict[str, Any]]]:
    """A conversation as templates read it: contents as text or as lists of parts, with a system's turn or without."""
    for system, parts in product((False, True), (False, True)):
        roles = {"system": "rules", "user": "question", "assistant": "answer"}
        turns = [(role, text) for role, text in roles.items() if system or role != "system"]
        yield [{"role": role, "content": [{"type": "text", "text": text}] if parts else text} for role, text in turns]


def _line(error: BaseException) -> str:
    """`line LINE: ` of the template in which an error arose."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"line {line}: " if line else ""


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`, which marks what the assistant generates and renders as what stands in it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates (src/transformers/utils/chat_template_utils.py)."""

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=refuse, strftime_now=datetime.now().strftime)
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)
