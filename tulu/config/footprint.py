"""From the energy of GPUs to that of the data centre, carbon and water: arithmetic, and constants with their sources.

Two studies of OLMo count alike, but from other constants:

- Morrison et al. 2025, "Holistically Evaluating the Environmental Impact of Creating Language Models" (arXiv 2503.05804):
  carbon = P · PUE · CI and water = P · PUE · (WUE on site + WUE off site), P the energy of the GPUs in kWh. Manufacture on top.
- The study of Olmo 3 (arXiv 2605.01158): the energy of the data centre is that of the GPUs times 1.74, which holds host, network,
  storage and cooling. It stands in PUE's place, never beside it.

Both multiply the energy of GPUs alone. Where that was measured, what CPUs and memory took is not multiplied again: it is among
what the factor stands for. On a machine without GPUs, the factor is that of what was measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass

EMBODIED_KG, EMBODIED_LITRES = 463.0, 102.6
"""Carbon and water of making one H100: 3,700 kg a server of eight, and 100.4 + 2.2 l (arXiv 2503.05804)."""
LIFE_HOURS = 4 * 365 * 24
"""Four years, over which these are spread (arXiv 2503.05804): 0.0132 kg and 0.0029 l an hour of a GPU."""


@dataclass(frozen=True)
class Making:
    """What making a GPU has taken, for each hour in which it is used."""

    carbon: float
    """kg CO2e."""
    water: float
    """Litres."""
    card: str
    """The word by which the GPU is known among the names of all; empty where the figures are said to be those of any."""
    source: str


MAKING = Making(
    EMBODIED_KG / LIFE_HOURS,
    EMBODIED_LITRES / LIFE_HOURS,
    "H100",
    f"{EMBODIED_KG:g} kg and {EMBODIED_LITRES:g} l over {LIFE_HOURS:,} hours (arXiv 2503.05804)",
)
"""The only GPU whose making these studies put a figure on."""


@dataclass(frozen=True)
class Facility:
    """A data centre and its grid."""

    overhead: float
    """Energy of the data centre for each kWh of its GPUs."""
    carbon: float
    """kg CO2e a kWh of the data centre."""
    water_on: float
    """Litres evaporated at the data centre for each kWh."""
    water_off: float
    """Litres consumed where a kWh is generated."""
    source: str


FACILITIES: Mapping[str, Facility] = {
    "jupiter": Facility(1.2, 0.332, 0.0, 1.29, "the cluster Jupiter in Texas, PUE 1.2 (arXiv 2503.05804)"),
    "augusta": Facility(1.12, 0.352, 0.0, 3.10, "the cluster Augusta in Iowa, PUE 1.12 (arXiv 2503.05804)"),
    "olmo3": Facility(1.74, 4251 / 12_300, 0.0, 1.29, "Olmo 3: all overhead 1.74; 4,251 t for 12.3 GWh (arXiv 2605.01158)"),
}
"""Data centres whose figures are published."""
DEFAULT = "olmo3"


@dataclass(frozen=True)
class Footprint:
    """What some energy and some hours of GPUs come to."""

    measured_kwh: float
    """Of GPUs, CPUs and memory, as a run has measured or estimated it."""
    gpu_kwh: float
    """Of these, the energy of the GPUs."""
    facility_kwh: float
    carbon_kg: float
    """Of generating the electricity."""
    water_litres: float
    embodied_kg: float
    """The share of making the GPUs."""
    embodied_litres: float

    def __add__(self, other: "Footprint") -> "Footprint":
        return Footprint(*(own + more for own, more in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[float, ...]:
        """The figures in the order of the fields."""
        return (
            *(self.measured_kwh, self.gpu_kwh, self.facility_kwh, self.carbon_kg),
            *(self.water_litres, self.embodied_kg, self.embodied_litres),
        )


NOTHING = Footprint(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def footprint(
    gpu_kwh: float, gpu_hours: float, facility: Facility, making: Making = MAKING, beside_kwh: float = 0.0
) -> Footprint:
    """The footprint of so many kWh of GPUs, so many hours of one GPU, and what CPUs and memory took beside them.

    A data centre takes no less than what was measured in it.
    """
    measured = gpu_kwh + beside_kwh
    whole = max((gpu_kwh or measured) * facility.overhead, measured)
    return Footprint(
        measured_kwh=measured,
        gpu_kwh=gpu_kwh,
        facility_kwh=whole,
        carbon_kg=whole * facility.carbon,
        water_litres=whole * (facility.water_on + facility.water_off),
        embodied_kg=gpu_hours * making.carbon,
        embodied_litres=gpu_hours * making.water,
    )
