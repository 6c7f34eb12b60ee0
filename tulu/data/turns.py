"""Locates an assistant's turn in a rendered conversation: where it begins, and where it ends."""

from collections.abc import Sequence


def turn_span(full: str, head: str, tail: str, content: str, before: str | None, stops: Sequence[str]) -> tuple[int, int] | None:
    """Character range of a turn, its end-of-turn token included; None where it cannot be located.

    `full` is the whole conversation as text, `head` its beginning with the generation prompt in place of the turn, `tail` its
    beginning with the turn. Where head or tail is no prefix of full, the turn is searched by its content, behind `before` (the
    beginning without the generation prompt) and up to one of `stops`, the special tokens.
    """
    start: int | None = len(head)
    if not full.startswith(head):
        start = _find_start(full, head, content.strip(), before)
    if start is None:
        return None
    if full.startswith(tail) and len(tail) > start:
        return start, len(tail)
    end = _find_end(full, start, content.strip(), stops)
    return None if end is None else (start, end)


def header_length(full: str, plain: str, prompted: str) -> int:
    """Length of the assistant's header, and of a special token before it, where a conversation opens with the assistant; else 0.

    `plain` and `prompted` are a user's turn without and with the generation prompt, whose difference is that header.
    """
    header = prompted[len(plain) :] if prompted.startswith(plain) else ""
    place = full.find(header) if header else -1
    # Only a beginning-of-text token may stand before it: anything longer is another turn.
    return place + len(header) if 0 <= place <= len("<|begin_of_text|>") else 0


def _find_start(full: str, head: str, content: str, before: str | None) -> int | None:
    """The end of the assistant's header, else the beginning of the content; None where neither is in the text.

    The content begins no earlier than the turns before it end, and no later than the text departs from `head`.
    """
    if before is None or not full.startswith(before):
        return None
    header = head[len(before) :] if head.startswith(before) else ""
    place = full.find(header, len(before)) if header else -1
    # Templates write more white space behind a turn that is not the last, which shows where two assistant turns meet.
    if place >= 0 and not full[len(before) : place].strip():
        return place + len(header)
    agreed = next((index for index, (x, y) in enumerate(zip(head, full, strict=False)) if x != y), min(len(head), len(full)))
    # Templates cut thoughts out of past turns, so that only what follows them may be left.
    shown = (text for text in (content, content.rpartition("</think>")[2].strip()) if text)
    return next((place for text in shown if (place := full.rfind(text, len(before), agreed + len(text))) >= 0), None)


def _find_end(full: str, start: int, content: str, stops: Sequence[str]) -> int | None:
    """The end of the first special token behind the start, if the content or a part of it stands between; else None.

    Templates cut thoughts out of past turns, so that only the end of a content may be left.
    """
    ends = [(place, place + len(stop)) for stop in stops if (place := full.find(stop, start)) >= 0]
    if not ends:
        return None
    place, end = min(ends)
    shown = full[start:place].strip()
    return end if shown and (content.endswith(shown) or shown.endswith(content)) else None
