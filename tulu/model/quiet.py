"""Silence for what transformers says of a step that is measured, or dealt with, right here."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import get_verbosity, set_verbosity, set_verbosity_error


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the warnings of transformers while the context lasts; errors are still raised."""
    before = get_verbosity()
    set_verbosity_error()
    try:
        yield
    finally:
        set_verbosity(before)
