"""What a template leaves out of a row, so that no row is trained in part without notice."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from tulu.data.chat import Encoded
from tulu.data.messages import ROLES
from tulu.data.render import Refused, Renderer
from tulu.types import Message, Tools

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THOUGHTS = "the template leaves out thoughts of the assistant"
"""What is noted and no reason to drop a row: many templates write the thoughts of the last turn alone."""
_FUNCTIONS = ("functions", "function_calls")
"""Keys of a message in which the templates of OLMo read tools and their calls."""
ODD_ROLE = "a message has a role that the template does not name, and stands in the text all the same"
"""What is noted of a row, because a message that is meant for the assistant would not be trained."""


def loss_of(tokenizer: "PreTrainedTokenizerBase", encoded: Encoded, messages: Sequence[Message], tools: Tools) -> str:
    """Which part of a row its tokens do not hold, as the reason to drop it; nothing where they hold all but thoughts."""
    for index in encoded.left_out:
        role = messages[index]["role"]
        return f"the template leaves out a message of the {role}" if role in ROLES else "the template leaves out a message"
    functions = [text for message in messages for key in _FUNCTIONS if isinstance(text := message.get(key), str)]
    if not tools and not functions:
        return ""
    says = _reader(str(tokenizer.decode(encoded.tokens)))
    if tools and not (_writes_tools(tokenizer, tools) and all(says(tool["function"]["name"]) for tool in tools)):
        return "the template leaves out the tools of the row; choose one that writes tools"
    return "" if all(map(says, functions)) else "the template leaves out functions of a message"


def odd_role(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> str:
    """The role of a message that is none of the usual ones, and that the template does not name either, with the cure.

    Many templates write a role as it is spelled, so that a model would learn a turn that nobody ever asks it for.
    """
    odd = next((message["role"] for message in messages if message["role"] not in ROLES), None)
    if odd is None or odd in str(tokenizer.get_chat_template()):
        return ""
    return f"role {odd!r:.40}; rename it to one of {', '.join(ROLES)}"


def _writes_tools(tokenizer: "PreTrainedTokenizerBase", tools: Tools) -> bool:
    """Whether the template writes a user's turn otherwise with tools than without; a short name is in a text by chance."""
    renderer = Renderer(tokenizer)
    for roles in (["user"], ["system", "user"]):
        chat: list[Message] = [{"role": role, "content": "?"} for role in roles]
        with suppress(Refused):
            if renderer.text(chat, tools) != renderer.text(chat):
                return True
    return False


def _reader(text: str) -> Callable[[str], bool]:
    """A function that says whether a part is in the text, white space aside, which some tokenizers do not give back."""
    squeezed = "".join(text.split())
    return lambda part: "".join(part.split()) in squeezed
