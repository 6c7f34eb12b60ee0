"""The rows of chat_templates.yaml, each with its template and a tokenizer that has the template's special tokens."""

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml
from transformers import PreTrainedTokenizerFast

from tulu.config.templates import TEMPLATES
from tulu.data.chat import make_byte_tokenizer

FOLDER = Path(__file__).parent
_SPECIAL = re.compile(
    r"<[|｜][^<>\s'\"{}]{1,40}[|｜]?>|<[a-z_]{3,20}[|]>|</s>|<(?:end|start)_of_(?:turn|utterance)>|\[/?[A-Z_|]{3,20}\]"
)
"""What special tokens look like in the sources of templates; <think> and <tool_call> are special in few tokenizers."""


@dataclass(frozen=True)
class TemplateRow:
    """A template and what is trained with it; chat_templates.yaml says what the fields are."""

    name: str
    source: str
    turn: str
    last: str
    thought: str
    call: str
    cut: str = ""
    system: str = ""

    @property
    def takes_calls(self) -> bool:
        """Whether the template renders calls of tools."""
        return "find_it" in self.call

    def template(self) -> str:
        """The source of the template."""
        kind, _, name = self.source.partition("/")
        if kind == "tulu":
            return TEMPLATES[name]
        place = files("trl").joinpath("chat_templates", name) if kind == "trl" else FOLDER / self.source
        return place.read_text(encoding="utf-8")

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """A tokenizer of bytes and of the special tokens that the template writes."""
        return tokenizer_of(self.template())


def tokenizer_of(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with a template, and with the special tokens that it writes."""
    made = make_byte_tokenizer()
    made.add_special_tokens({"additional_special_tokens": sorted({*_SPECIAL.findall(template), "<bos>", "<eos>", "</s>"})})
    made.bos_token, made.eos_token = "<bos>", "</s>" if "[INST]" in template else "<eos>"
    made.chat_template = template
    return made


ROWS = [TemplateRow(**row) for row in yaml.safe_load((FOLDER / "chat_templates.yaml").read_text(encoding="utf-8"))]
