"""An environment for tests: tools that are quick, slow, wrong or deadly, and a state that only one episode sees."""

import asyncio
import os
import time
from typing import Any


def wait_for(place: str | None) -> None:
    """Wait until somebody makes that file."""
    while place is not None and not os.path.exists(place):
        time.sleep(0.01)


class Shop:
    """A counter."""

    def __init__(self, begin: int = 0) -> None:
        self.count = begin
        self.row: dict[str, Any] = {}

    def reset(self, **row: Any) -> str | None:
        """Begin with the row's number."""
        self.row = row
        wait_for(row.get("begins"))
        if row.get("broken"):
            raise ValueError("this row cannot be played")
        text: str | None = row.get("hint")
        return text

    def add(self, x: int) -> int:
        """Add to the counter.

        Args:
            x: How much.
        """
        self.count += x
        return self.count

    def hang(self) -> str:
        """Never come back."""
        while True:
            time.sleep(1000)

    def nap(self, seconds: float) -> str:
        """Come back late.

        Args:
            seconds: How late.
        """
        time.sleep(seconds)
        wait_for(self.row.get("wakes"))
        return f"slept {seconds}"

    def die(self) -> str:
        """End the process."""
        os._exit(3)

    async def fetch(self, name: str, seconds: float) -> str:
        """Wait for something.

        Args:
            name: What.
            seconds: How long.
        """
        await asyncio.sleep(seconds)
        return name

    def get_reward(self) -> float | None:
        """The counter; no score where it is 13."""
        return None if self.count == 13 else float("nan") if self.count == 14 else float(self.count)
