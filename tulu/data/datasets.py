"""Data sets to groups and problems: sampled, tokenised and masked once, cached by content."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache as memoise
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tulu.config.schema import Source
from tulu.data.chat import template_hash
from tulu.data.mixing import checked, drawn, mix, order
from tulu.data.problems import Problems, problems
from tulu.data.sources import Row, content_key, load_rows
from tulu.data.token_cache import Corrupt, Groups, Part, load_part
from tulu.data.tokenise import Options, encode_part
from tulu.track import track

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Groups",
    "Problems",
    "load_rows",
    "mix",
    "order",
    "pair_groups",
    "problems",
    "sft_groups",
    "text_groups",
    "tokenizer_digest",
]

log = logging.getLogger("tulu")

_CODE = sorted(Path(__file__).parent.glob("*.py"))
"""The files of this chapter, which decide how rows become tokens; a change in any of them is another cache entry."""


def sft_groups(
    sources: Sequence[Source], tokenizer: "PreTrainedTokenizerBase", max_length: int, cache: Path | None = None, seed: int = 1
) -> Groups:
    """Conversations: one completion each, every assistant turn trained, cut off at max_length tokens."""
    return _groups(sources, tokenizer, Options("sft", max_length), cache, seed)


def pair_groups(
    sources: Sequence[Source],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    cache: Path | None = None,
    drop_long: bool = False,
    seed: int = 1,
) -> Groups:
    """Pairs: completions (chosen, rejected) behind their longest common prefix, the last assistant turn trained.

    A side over max_length tokens is cut off (DPO), or with drop_long the pair is left out (reward models).
    """
    return _groups(sources, tokenizer, Options("pairs", max_length, drop_long), cache, seed)


def text_groups(
    sources: Sequence[Source], tokenizer: "PreTrainedTokenizerBase", max_length: int, cache: Path | None = None, seed: int = 1
) -> Groups:
    """Plain text, every token trained, as groups of at most max_length tokens."""
    return _groups(sources, tokenizer, Options("text", max_length), cache, seed)


def _groups(
    sources: Sequence[Source], tokenizer: "PreTrainedTokenizerBase", options: Options, cache: Path | None, seed: int
) -> Groups:
    return Groups([_part(source, tokenizer, options, cache, seed) for source in checked(sources)])


def _part(source: Source, tokenizer: "PreTrainedTokenizerBase", options: Options, cache: Path | None, seed: int) -> Part:
    if cache is None:
        return _encoded(source, drawn(source, seed, options.kind), tokenizer, options)
    content = content_key(source, seed)
    found: Iterable[Row] | None = None
    if content is None:
        found = list(drawn(source, seed, options.kind))
        content = _row_digest(found)
    settings = [source.model_dump(), seed, options.kind, options.max_length, options.drop_long]
    key = [content, settings, tokenizer_digest(tokenizer), template_hash(tokenizer), _code_digest()]
    folder = cache / "tokens" / hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()
    if folder.exists():
        try:
            return load_part(folder)
        except Corrupt as error:
            log.warning("damaged cache entry, tokenising again: %s", error)
            _discard(folder)
    part = _encoded(source, found if found is not None else drawn(source, seed, options.kind), tokenizer, options)
    part.save(folder)
    return part


def _encoded(source: Source, found: Iterable[Row], tokenizer: "PreTrainedTokenizerBase", options: Options) -> Part:
    return encode_part(source.name, track(found, f"tokenising {source.name}"), tokenizer, options)


def _discard(folder: Path) -> None:
    """Out of the way at once, then deleted: another process may look at the same time."""
    aside = folder.with_name(f".partial-damaged-{folder.name}-{os.getpid()}")
    with suppress(FileNotFoundError):  # that other process was first
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _row_digest(found: Sequence[Row]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for row in found:
        digest.update(json.dumps([row.id, row.columns], default=str).encode())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hash of vocabulary, rules and special tokens, 32 hex digits; the template has its own."""
    backend = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else repr(tokenizer)
    specials = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.blake2b(json.dumps([backend, specials], sort_keys=True).encode(), digest_size=16).hexdigest()


@memoise
def _code_digest() -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in _CODE:
        digest.update(file.read_bytes())
    for library in ("tokenizers", "transformers"):
        digest.update(version(library).encode())
    return digest.hexdigest()
