"""Energy of a run, by codecarbon: what the hardware counts where it counts, an estimate from load and size where not.

Kilowatt-hours of the main process's whole machine. Carbon would need the place and its grid, which a run does not know.
"""

import logging
from collections.abc import Mapping
from threading import Thread
from typing import Any

from codecarbon import OfflineEmissionsTracker
from codecarbon.output import BaseOutput, EmissionsData

PARTS = {"cpu_kwh": "cpu_energy", "gpu_kwh": "gpu_energy", "ram_kwh": "ram_energy"}
"""Our names for codecarbon's."""
COUNTERS = ("rapl", "gadget", "emi", "gpu", "apple")
"""What codecarbon calls the sources that count energy; the others estimate it."""

Energy = dict[str, Any]
"""kwh, its parts, and the sources that only estimate theirs."""


class _Latest(BaseOutput):
    """Keeps what codecarbon last reported."""

    def __init__(self) -> None:
        self.total: EmissionsData | None = None

    def out(self, total: EmissionsData, delta: EmissionsData) -> None:
        self.total = total


class EnergyMeter:
    """What this machine takes from now on, on top of what earlier sessions of a run took."""

    def __init__(self, before: Mapping[str, Any]) -> None:
        """Start measuring; the first look at the hardware takes a second or two, and is taken beside the work."""
        # It would announce itself, and warn of every sensor that it does not find.
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        self._before = before
        self._latest = _Latest()
        self._tracker = OfflineEmissionsTracker(
            country_iso_code="USA",  # it insists; only carbon depends on it
            save_to_file=False,
            allow_multiple_runs=True,
            log_level="critical",
            output_handlers=[self._latest],
        )
        self._starting = Thread(target=self._tracker.start, daemon=True)
        self._starting.start()

    def read(self) -> Energy:
        """Kilowatt-hours so far; empty where codecarbon finds nothing to go by."""
        self._starting.join()
        self._tracker.flush()
        return self._sum()

    def stop(self) -> Energy:
        """The last reading; the meter's threads end."""
        self._starting.join()
        self._tracker.stop()
        return self._sum()

    def _sum(self) -> Energy:
        total = self._latest.total
        if total is None:
            return dict(self._before)
        parts = {name: getattr(total, field) + self._before.get(name, 0.0) for name, field in PARTS.items()}
        sources = [repr(part) for part in self._tracker._hardware]
        estimated = [source for source in sources if not any(word in source.lower() for word in COUNTERS)]
        return {"kwh": sum(parts.values()), **parts, "estimated": estimated}
