"""`tulu chat MODEL`: a conversation with a model in the terminal, its answers written as they come."""

import io
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, TextStreamer

from tulu.data.chat import encode_prompt
from tulu.errors import DataError, RecipeError
from tulu.evaluation.options import ChatOptions
from tulu.model.devices import default_device
from tulu.model.generation import stop_token_ids
from tulu.model.load import load_model, load_tokenizer
from tulu.model.positions import longest_document
from tulu.rollout.transformers_engine import ordinary_attention
from tulu.types import Message

HELP = "/system TEXT sets the system prompt, /reset forgets the conversation, /quit (or Ctrl-D) ends; Ctrl-C stops an answer"
ADAPTER = "adapter_config.json"


@dataclass
class Chat:
    """A model and what was said so far."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    options: ChatOptions
    messages: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.set_system(as_text(self.options.system or ""))
        self.stop_tokens = stop_token_ids(self.tokenizer, self.model.generation_config)
        self.room = longest_document(self.model.config) or sys.maxsize

    def set_system(self, text: str) -> None:
        """Begin a new conversation with this system prompt, or with none where the text is empty."""
        self.messages = [{"role": "system", "content": text}] if text.strip() else []

    def reset(self) -> None:
        """Forget all but the system prompt."""
        self.messages = [message for message in self.messages if message["role"] == "system"]

    @torch.no_grad()
    def answer(self, question: str, streamer: Any = None) -> str:
        """Answer a question and remember both. KeyboardInterrupt keeps what was written so far of neither.

        Raises DataError where the conversation no longer fits the model, or its template refuses it.
        """
        asked: list[Message] = [*self.messages, {"role": "user", "content": question}]
        prompt = encode_prompt(self.tokenizer, asked)
        room = min(self.options.max_tokens, self.room - len(prompt))
        if room < 1:
            raise DataError(f"the conversation has {len(prompt)} tokens and the model {self.room} positions; /reset forgets it")
        sampled = self.options.temperature > 0
        sampling = {"temperature": self.options.temperature, "top_p": self.options.top_p, "top_k": 0} if sampled else {}
        input_ids = torch.tensor([prompt], device=self.model.device)
        with ordinary_attention(self.model):
            found: Any = self.model.generate(  # type: ignore[operator]
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                do_sample=sampled,
                max_new_tokens=room,
                eos_token_id=list(self.stop_tokens),
                pad_token_id=self.stop_tokens[0] if self.stop_tokens else 0,
                streamer=streamer,
                **sampling,
            )
        text = self.tokenizer.decode(found[0, len(prompt) :], skip_special_tokens=True)
        self.messages = [*asked, {"role": "assistant", "content": str(text)}]
        return str(text)


def load_chat(model: str, options: ChatOptions, revision: str | None = None) -> Chat:
    """Load a model, or the adapters in a folder with the model that they belong to. Raises RecipeError."""
    base = adapted_model(Path(model)) or model
    place = _with_tokenizer(model, base)
    apart = place != base
    tokenizer = load_tokenizer(place, options.template, revision, options.trust_remote_code, beside_adapters=apart)
    loaded: Any = load_model(
        AutoModelForCausalLM,
        base,
        precision="bf16" if torch.cuda.is_available() else "fp32",
        tokenizer=tokenizer,
        revision=revision,
        trust_remote_code=options.trust_remote_code,
    )
    if base != model:
        from peft import PeftModel

        try:
            loaded = PeftModel.from_pretrained(loaded, model).merge_and_unload()
        except (ValueError, RuntimeError, OSError) as error:
            raise RecipeError(f"{model}: these adapters do not fit {base} ({str(error).splitlines()[0]})") from error
    if options.seed is not None:
        torch.manual_seed(options.seed)
    return Chat(loaded.to(default_device()).eval(), tokenizer, options)


def adapted_model(folder: Path) -> str | None:
    """The model that a folder's adapters belong to; None where it holds no adapters. Raises RecipeError where it names none."""
    file = folder / ADAPTER
    if not file.is_file():
        return None
    from peft import PeftConfig

    try:
        base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    except (ValueError, TypeError, OSError) as error:
        raise RecipeError(f"{file}: cannot be read ({error})") from error
    if not base:
        raise RecipeError(f"{file}: base_model_name_or_path names no model; write there which one the adapters belong to")
    return str(base)


def _with_tokenizer(model: str, base: str) -> str:
    return model if (Path(model) / "tokenizer_config.json").is_file() else base


def converse(chat: Chat, lines: Iterable[str], say: Callable[[str], None]) -> None:
    """Answer line by line, with commands that begin with a slash."""
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if not word:
            continue
        if word in ("/quit", "/exit"):
            return
        if word == "/reset":
            chat.reset()
        elif word == "/system":
            chat.set_system(rest)
        elif word.startswith("/") and word[1:].isalpha():
            say(HELP)
        else:
            _answer(chat, line.strip(), say)


def _answer(chat: Chat, question: str, say: Callable[[str], None]) -> None:
    try:
        chat.answer(question, TextStreamer(chat.tokenizer, skip_prompt=True, skip_special_tokens=True))
    except KeyboardInterrupt:
        say("\n(stopped; neither question nor answer is remembered)")
    except DataError as error:
        say(str(error))


def as_text(given: str) -> str:
    """What was typed, or stands on the command line, where Python takes characters beyond ASCII for bytes of no text (LANG=C).

    Such bytes are read as UTF-8; those that are no character there become the replacement character.
    """
    return given.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def typed_lines() -> Iterable[str]:
    """What is typed, line by line with a prompt; where nobody types, the lines of standard input."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        # In some places a byte that is no text of the terminal's encoding is an error instead.
        sys.stdin.reconfigure(errors="surrogateescape")
    if not sys.stdin.isatty():
        yield from map(as_text, sys.stdin)
        return
    while True:
        try:
            yield as_text(input("> "))
        except EOFError:
            print()
            return
