"""The hub of models and data sets: whether it can be reached is asked once, and not again for every file with retries."""

import logging
import os
import sys
from functools import cache
from typing import Any

log = logging.getLogger("tulu")

PATIENCE = 10.0
"""Seconds within which the hub must answer."""


@cache
def reach_hub() -> None:
    """Let everything that follows use the hub's cache alone where the hub cannot be reached, and say so.

    Libraries ask the hub for every file of a model, and try again for a minute each time that nothing answers.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # noqa: BLE001
        # What a request raises depends on the library beneath the hub's, on proxies and on certificates.
        log.warning("%s cannot be reached (%s): only what is in its cache here is used", constants.ENDPOINT, error)
        go_offline(constants)


def go_offline(constants: Any) -> None:
    """Set what the libraries of this process and of those that it starts read."""
    constants.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = "1"
    if (loaded := sys.modules.get("datasets.config")) is not None:
        loaded.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
