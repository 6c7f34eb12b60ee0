"""Completions as the browser of rollouts shows them, with their tokens told apart."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from tulu.report.reading import listed, number
from tulu.report.rollout_files import PREVIEW, UNKNOWN, Index, RolloutFile

TOKENIZER = "tokenizer.json"
"""The file beside the rollouts that tells their tokens apart (rollout/records.py writes it)."""
LISTED = ("completion", "id", "detail")
"""What a list reads of the completions beside their numbers."""
MOST_WAITING = 8
"""Most tokens in a row that may have no text before they are shown as what each is by itself."""
DECODED = "decoded"
"""Where a row keeps the texts of its tokens."""
UNFINISHED = 3
"""Tokens that may begin a character that is not finished: one has at most four bytes."""


def load_tokenizer(stage: Path) -> Tokenizer | None:
    """The tokenizer that a stage kept beside its rollouts; None where there is none or it cannot be read."""
    file = stage / "rollouts" / TOKENIZER
    if not file.is_file():
        return None
    try:
        return Tokenizer.from_file(str(file))
    except Exception:  # noqa: BLE001 - the library raises plain Exception for whatever is wrong with the file
        return None


def pieces(tokenizer: Tokenizer, tokens: Sequence[int], most: int | None = None) -> list[str]:
    """The text of each token, of so many tokens as `most` characters need; without it of all.

    A character that several tokens share stands with the last of them. Bytes that never become a character stand as what
    their token is by itself. The library's stream decodes all tokens again that have no text yet, so that of many such tokens
    only the last ones, which may still begin a character, stay in it.
    """
    texts: list[str] = []
    stream, waiting, shown = _stream(), 0, 0
    while len(texts) < len(tokens) and (most is None or shown < most):
        token = tokens[len(texts)]
        try:
            text = stream.step(tokenizer, int(token)) or ""
        except Exception:  # noqa: BLE001 - bytes that make no text end the library's stream
            shown += _show_alone(texts, tokenizer, tokens, waiting)
            stream, text, waiting = _stream(), _alone(tokenizer, token), 0
        texts.append(text)
        shown += len(text)
        waiting = 0 if text else waiting + 1
        if waiting > MOST_WAITING:
            del texts[-UNFINISHED:]
            shown += _show_alone(texts, tokenizer, tokens, waiting - UNFINISHED)
            stream, waiting = _stream(), 0
    _show_alone(texts, tokenizer, tokens, waiting)
    return texts


def _stream() -> DecodeStream:
    return DecodeStream(skip_special_tokens=False)


def _alone(tokenizer: Tokenizer, token: int) -> str:
    return tokenizer.decode([int(token)], skip_special_tokens=False)


def _show_alone(texts: list[str], tokenizer: Tokenizer, tokens: Sequence[int], waiting: int) -> int:
    """Show the last tokens, which wait for a character, as what each is by itself; returns how many characters that adds."""
    first = len(texts) - waiting
    texts[first:] = [_alone(tokenizer, token) for token in tokens[first : len(texts)]]
    return sum(map(len, texts[first:]))


def read_group(file: RolloutFile, index: Index, group: int, members: int) -> list[dict[str, Any]]:
    """The first completions of a group, as they lie in the file. Raises Damaged."""
    starts = index.starts
    place = int(np.flatnonzero(index.group[starts[:-1]] == group)[0])
    begin, end = int(starts[place]), int(starts[place + 1])
    return file.rows(range(begin, min(end, begin + members)))


def group_view(step: int, group: int, rows: Sequence[dict[str, Any]], tokenizer: Tokenizer | None, most: int) -> dict[str, Any]:
    """A group with its completions side by side; texts and tokens beyond `most` characters are cut, which is said."""
    first = rows[0]
    prompt = str(first.get("prompt") or "")
    return {
        "step": step,
        "group": group,
        "id": str(first.get("id") or ""),
        "verifier": str(first.get("verifier") or UNKNOWN),
        "prompt": cut(prompt, most)[0],
        "prompt_cut": cut(prompt, most)[1],
        "rows": [completion_view(row, tokenizer, most) for row in rows],
    }


def completion_view(row: dict[str, Any], tokenizer: Tokenizer | None, most: int) -> dict[str, Any]:
    """One completion."""
    text, lost = cut(str(row.get("completion") or ""), most)
    shown: dict[str, Any] = {
        "text": text,
        "cut": lost,
        "tokens": int(number(row.get("tokens")) or 0),
        "status": str(row.get("status") or "ok"),
        "detail": str(row.get("detail") or "")[:400],
        "finish": str(row.get("finish") or ""),
        "trained": bool(row.get("trained")),
        "versions": [span for span in listed(row.get("versions")) if len(listed(span)) == 2],
    }
    for name in ("score", "reward", "advantage", "reward_model", "penalty"):
        if name in row:
            shown[name] = short(number(row[name]))
    if tokenizer is not None and (texts := _texts(row, tokenizer, most)):
        shown |= _tokens(row, texts, most)
    return shown


@dataclass(frozen=True)
class Decoded:
    """The texts of a completion's tokens up to so many characters, which its row keeps for whoever asks for fewer."""

    texts: list[str]
    most: int


def _texts(row: dict[str, Any], tokenizer: Tokenizer, most: int) -> list[str]:
    """The texts of a completion's tokens, decoded once for `most` characters or fewer."""
    known = row.get(DECODED)
    if isinstance(known, Decoded) and known.most >= most:
        return known.texts
    ids = [token for token in listed(row.get("token_ids")) if isinstance(token, int)]
    # Equal texts are one object, because tokens are many and the texts that they have few.
    texts = [sys.intern(text) for text in pieces(tokenizer, ids[:most], most)]
    row[DECODED] = Decoded(texts, most)
    return texts


def _tokens(row: dict[str, Any], texts: list[str], most: int) -> dict[str, Any]:
    """The tokens up to `most` characters, with the numbers that are known of each."""
    room, count = most, 0
    while count < len(texts) and room > 0:
        room -= len(texts[count])
        count += 1
    found: dict[str, Any] = {"pieces": texts[:count], "cut": len(row["token_ids"]) - count, "cut_tokens": True}
    for name in ("mismatch", "advantage"):
        if values := listed(row.get(f"token_{name}")):
            found[f"token_{name}"] = [short(number(value), 2) for value in values[:count]]
    if flags := listed(row.get("token_trained")):
        found["token_trained"] = [int(bool(flag)) for flag in flags[:count]]
    return found


def list_view(file: RolloutFile, index: Index, places: Sequence[int]) -> list[dict[str, Any]]:
    """Completions as lines of a list, in ascending order."""
    ordered = sorted(places)
    read = file.rows(ordered, LISTED)
    return [
        {
            "step": file.step,
            "group": int(index.group[place]),
            "member": int(place - np.searchsorted(index.group, index.group[place])),
            "id": str(row.get("id") or ""),
            "verifier": index.verifiers[index.verifier[place]],
            "reward": short(number(float(index.reward[place]))),
            "score": short(number(float(index.score[place]))),
            "tokens": int(index.tokens[place]),
            "truncated": bool(index.truncated[place]),
            "masked": bool(index.masked[place]),
            "preview": str(row.get("completion") or "")[:PREVIEW],
        }
        for place, row in zip(ordered, read, strict=True)
    ]


def cut(text: str, most: int) -> tuple[str, int]:
    """The text without its middle where it is longer than `most`, and how many characters that leaves out."""
    if len(text) <= most:
        return text, 0
    head, lost = most * 2 // 3, len(text) - most
    return f"{text[:head]} ⋯ {lost:,} characters ⋯ {text[len(text) - (most - head) :]}", lost


def short(value: float | None, digits: int = 5) -> float | None:
    """A number with as many digits as are shown."""
    return None if value is None else float(f"{value:.{digits}g}")
