"""Data sets to groups: sampled, tokenised and masked once, then cached by their content."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache as memoise
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tulu.config.parts import Source
from tulu.config.stages import RowKind
from tulu.data.chat import template_hash
from tulu.data.formats import ACCEPTED
from tulu.data.mixing import check_sources, sample_rows
from tulu.data.sources import Row, content_key
from tulu.data.token_cache import Groups, Part, is_whole, open_part
from tulu.data.token_files import (
    TokenFile,
    files_digest,
    index_files,
    is_whole_index,
    part_of,
    read_index,
    token_files,
    token_paths,
    write_index,
)
from tulu.data.tokenise import TokeniseOptions, encode_part
from tulu.errors import DataError
from tulu.progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PACKAGE = Path(__file__).resolve().parents[1]
_CONFIG_IMPORT = re.compile(r"^\s*from tulu\.config\.(\w+) import ", re.MULTILINE)
"""A line such as `from tulu.config.templates import TEMPLATES`."""


def load_groups(
    kind: RowKind,
    sources: Sequence[Source],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    cache: Path | None = None,
    *,
    seed: int = 1,
    drop_long: bool = False,
    labels: Literal["all", "last"] = "last",
) -> Groups:
    """The groups of a mix, of at most max_length tokens each side; DataError where a source has no usable row.

    `sft`: conversations, one completion each, every assistant turn trained, cut off at max_length. `pairs`: completions
    (chosen, rejected) behind their longest common prefix, the last assistant turn trained, or with labels all every one; a side
    over max_length is cut off (DPO), or with drop_long the pair is left out (reward models). `text`: plain text in pieces, every
    token trained.
    """
    if cache is not None:
        made = cache_groups(kind, sources, tokenizer, max_length, cache, seed=seed, drop_long=drop_long, labels=labels)
        return open_groups(made)
    options = TokeniseOptions(kind, max_length, drop_long, labels)
    return Groups([_part(source, tokenizer, options, seed) for source in check_sources(sources)])


def _part(source: Source, tokenizer: "PreTrainedTokenizerBase", options: TokeniseOptions, seed: int) -> Part:
    if paths := token_paths(source):
        files = _token_files(paths, source, tokenizer, options.kind)
        return part_of(*index_files(source, files, tokenizer, options.max_length, options.drop_long, seed), files_digest(files))
    return _encode(source, tokenizer, options, seed)


def _token_files(
    paths: Sequence[Path], source: Source, tokenizer: "PreTrainedTokenizerBase", kind: RowKind
) -> Sequence[TokenFile]:
    if kind != "sft":
        raise DataError(f"{source.name}: holds token ids, which sft alone reads; give rows of {ACCEPTED[kind]}")
    return token_files(paths, source, tokenizer)


def cache_groups(
    kind: RowKind,
    sources: Sequence[Source],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    cache: Path,
    *,
    seed: int = 1,
    drop_long: bool = False,
    labels: Literal["all", "last"] = "last",
) -> list[Path]:
    """As `load_groups`, but the folders of the cache that hold the groups, one for each source; every byte was checked.

    One process does this for all that train together; the others only open the folders.
    """
    options = TokeniseOptions(kind, max_length, drop_long, labels)
    return [_cached(source, tokenizer, options, cache, seed) for source in check_sources(sources)]


def open_groups(folders: Sequence[Path]) -> Groups:
    """The groups in folders of the cache, mapped from the disk; DataError where this process does not see one of them."""
    for folder in folders:
        if not (folder / "meta.json").is_file():
            raise DataError(f"{folder}: not to be seen by this process; put --runs on a file system that all processes share")
    return Groups([read_index(folder) or open_part(folder) for folder in folders])


def _cached(source: Source, tokenizer: "PreTrainedTokenizerBase", options: TokeniseOptions, cache: Path, seed: int) -> Path:
    """The cache's folder of one source, which is tokenised if the folder is not there or is damaged."""
    if paths := token_paths(source):
        return _indexed(_token_files(paths, source, tokenizer, options.kind), source, tokenizer, options, cache, seed)
    folder = entry_folder(source, tokenizer, options, cache, seed)
    if folder.exists():
        if is_whole(folder):
            return folder
        _discard(folder)
    _encode(source, tokenizer, options, seed, folder)
    return folder


def _indexed(
    files: Sequence[TokenFile],
    source: Source,
    tokenizer: "PreTrainedTokenizerBase",
    options: TokeniseOptions,
    cache: Path,
    seed: int,
) -> Path:
    """The cache's folder that says where the documents of files of token ids lie."""
    content = files_digest(files)
    settings = [source.model_dump(), seed, options.max_length, options.drop_long, [file.tokens for file in files]]
    folder = _folder([content, settings, tokenizer_digest(tokenizer), code_digest()], cache)
    if folder.exists() and not is_whole_index(folder):
        _discard(folder)
    if not folder.exists():
        write_index(folder, *index_files(source, files, tokenizer, options.max_length, options.drop_long, seed), content)
    return folder


def _folder(key: Sequence[Any], cache: Path) -> Path:
    return cache / "tokens" / hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()


def entry_folder(source: Source, tokenizer: "PreTrainedTokenizerBase", options: TokeniseOptions, cache: Path, seed: int) -> Path:
    """Where the cache keeps a source's groups, by everything that decides what they are."""
    # The rows of a hub name without commit are read twice, once for the key, because holding them all would take memory.
    content = content_key(source, seed) or _row_digest(sample_rows(source, seed, options.kind))
    settings = [source.model_dump(), seed, options.kind, options.max_length, options.drop_long, options.labels]
    key = [content, settings, tokenizer_digest(tokenizer), template_hash(tokenizer), code_digest()]
    return _folder(key, cache)


def _encode(
    source: Source, tokenizer: "PreTrainedTokenizerBase", options: TokeniseOptions, seed: int, folder: Path | None = None
) -> Part:
    rows = track(sample_rows(source, seed, options.kind), f"tokenising {source.name}")
    return encode_part(source.name, rows, tokenizer, options, folder)


def _discard(folder: Path) -> None:
    """Rename a damaged entry at once, then delete it, because another process may read the cache at the same time."""
    aside = folder.with_name(f".partial-damaged-{folder.name}-{os.getpid()}")
    with suppress(FileNotFoundError):  # that other process was first
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _row_digest(rows: Iterable[Row]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(json.dumps([row.id, row.columns], default=str).encode())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hash of a tokenizer's vocabulary, rules and special tokens, 32 hex digits; its template has a hash of its own."""
    backend = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else repr(tokenizer)
    specials = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.blake2b(json.dumps([backend, specials], sort_keys=True).encode(), digest_size=16).hexdigest()


@memoise
def code_digest(package: Path = _PACKAGE) -> str:
    """Hash of the code that decides how rows become tokens, so that a change in it makes new cache entries; 32 hex digits.

    That code is all of the chapter `data`, the files of `config` that it imports, and the libraries that tokenise.
    """
    digest = hashlib.blake2b(digest_size=16)
    chapter = sorted((package / "data").rglob("*.py"))
    imported = {name for file in chapter for name in _CONFIG_IMPORT.findall(file.read_text(encoding="utf-8"))}
    for file in [*chapter, *(package / "config" / f"{name}.py" for name in sorted(imported))]:
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    for library in ("tokenizers", "transformers"):
        digest.update(version(library).encode())
    return digest.hexdigest()
