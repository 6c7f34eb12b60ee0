"""The energy of a run in kilowatt-hours, by codecarbon: measured where the hardware counts it, estimated where it does not.

It is that of the whole machine of the main process. An estimate is made from load and size. Carbon would need the place of
the machine and its grid, which a run does not know.
"""

import logging
import time
from collections.abc import Callable, Mapping
from threading import Event, RLock, Thread
from typing import Any

from codecarbon import OfflineEmissionsTracker
from codecarbon.output import BaseOutput, EmissionsData

from tulu.model.private_state import energy_sources

PARTS = {"cpu_kwh": "cpu_energy", "gpu_kwh": "gpu_energy", "ram_kwh": "ram_energy"}
"""Our name of each part of the energy, and codecarbon's."""
COUNTERS = ("rapl", "gadget", "emi", "gpu", "apple")
"""Words in codecarbon's descriptions of sources that measure energy, such as `CPU(Intel Rapl)`; the others estimate it."""

UNMETERED = "the seconds before the meter answered"
"""Named among what is estimated where they are more than one in a hundred."""
_TRUSTED = 0.1
"""Seconds after which a power that codecarbon measured says something."""

KEEP_EVERY = 30.0
"""Seconds between two times that a meter gives away what it has measured, which is what a kill may lose."""

Energy = dict[str, Any]
"""`kwh`, its parts as in PARTS, the `seconds` of all sessions in which it was measured, and `estimated`, the descriptions of the
sources that only estimate theirs."""


class _LatestReport(BaseOutput):
    """An output of codecarbon that keeps its latest report."""

    def __init__(self) -> None:
        self.total: EmissionsData | None = None

    def out(self, total: EmissionsData, delta: EmissionsData) -> None:
        self.total = total


class EnergyMeter:
    """Measures what this machine takes from now on, on top of what earlier sessions of a run took."""

    def __init__(self, before: Mapping[str, Any], keep: Callable[[Energy], None] | None = None) -> None:
        """Start measuring. codecarbon looks at the hardware for a second or two, in a thread beside the work.

        Those seconds count at the power that is measured first. Every half minute, `keep` gets the energy so far.
        """
        self._began = time.perf_counter()
        self._unmetered: Mapping[str, float] | None = None
        # Otherwise codecarbon announces itself, and warns of every sensor that it does not find.
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        self._before = before
        self._latest = _LatestReport()
        self._tracker = OfflineEmissionsTracker(
            country_iso_code="USA",  # codecarbon requires one; only carbon depends on it
            save_to_file=False,
            allow_multiple_runs=True,
            log_level="critical",
            output_handlers=[self._latest],
        )
        self._up = self._began
        self._starting = Thread(target=self._start, daemon=True)
        self._starting.start()
        self._keep, self._over, self._one_reader = keep, Event(), RLock()
        self._keeping = Thread(target=self._keep_on, daemon=True)
        if keep is not None:
            self._keeping.start()

    def _start(self) -> None:
        self._tracker.start()
        self._up = time.perf_counter()

    def _keep_on(self) -> None:
        while not self._over.wait(KEEP_EVERY):
            if self._keep is not None:
                self._keep(self.read())

    def read(self) -> Energy:
        """The energy so far, of all sessions; that of the earlier ones where codecarbon has nothing to measure by."""
        self._starting.join()
        with self._one_reader:
            self._tracker.flush()
            return self._sum()

    def stop(self) -> Energy:
        """The energy of all sessions; the threads of the meter end."""
        self._over.set()
        if self._keep is not None:
            self._keeping.join()
        self._starting.join()
        # A stage may have ended before the meter was up, and would have no power at all.
        time.sleep(max(0.0, _TRUSTED - (time.perf_counter() - self._up)))
        self._tracker.stop()
        return self._sum()

    def _sum(self) -> Energy:
        """The latest report added to the energy of earlier sessions."""
        total = self._latest.total
        seconds = self._before.get("seconds", 0.0) + time.perf_counter() - self._began
        if total is None:
            return {**self._before, "seconds": seconds}
        measured = {name: getattr(total, field) for name, field in PARTS.items()}
        missing = max(0.0, time.perf_counter() - self._began - total.duration)
        if self._unmetered is None and total.duration >= _TRUSTED:
            self._unmetered = {name: value * missing / total.duration for name, value in measured.items()}
        early = self._unmetered or {}
        parts = {name: value + early.get(name, 0.0) + self._before.get(name, 0.0) for name, value in measured.items()}
        estimated = [source for source in energy_sources(self._tracker) if not any(word in source.lower() for word in COUNTERS)]
        estimated += [UNMETERED] if sum(early.values()) > 0.01 * sum(measured.values()) else []
        return {"kwh": sum(parts.values()), **parts, "seconds": seconds, "estimated": estimated}
