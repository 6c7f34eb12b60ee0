"""Carbon and water as two studies of OLMo print them, to their digits.

Where a printed energy was rounded, some energy that rounds to it must give the printed carbon and water.
"""

import pytest

from tulu.config.footprint import FACILITIES, NOTHING, Facility, Footprint, Making, footprint

JUPITER, AUGUSTA, OLMO3 = (FACILITIES[name] for name in ("jupiter", "augusta", "olmo3"))


@pytest.mark.parametrize(("mwh", "tonnes", "kilolitres"), [(30.0, 10.0, 38.7), (54.0, 17.9, 69.7)])
def test_the_smaller_models_of_the_first_study(mwh: float, tonnes: float, kilolitres: float) -> None:
    """OLMo 1B and OLMoE (arXiv 2503.05804): their energies are those of the data centre, so no PUE comes on top."""
    found = footprint(mwh * 1000, 0.0, Facility(1.0, JUPITER.carbon, JUPITER.water_on, JUPITER.water_off, ""))
    assert round(found.carbon_kg / 1000, 1) == tonnes
    assert round(found.water_litres / 1000, 1) == kilolitres


def test_the_largest_model_of_the_first_study() -> None:
    """OLMo 2 13B: 230 MWh, 101 t, 892 kl. These contain PUE twice, so the 230 MWh are neither with nor without one."""
    twice = Facility(AUGUSTA.overhead**2, AUGUSTA.carbon, AUGUSTA.water_on, AUGUSTA.water_off, "")
    energies = [229_500.0 + 10 * step for step in range(101)]
    found = [footprint(kwh, 0.0, twice) for kwh in energies]
    assert any((round(one.carbon_kg / 1000), round(one.water_litres / 1000)) == (101, 892) for one in found)
    once = [footprint(kwh, 0.0, AUGUSTA) for kwh in energies]
    assert not any(round(one.carbon_kg / 1000) == 101 for one in once)


def test_making_the_gpus() -> None:
    """0.013 kg and 0.003 l an hour of a GPU; 1.65 million hours come to 22 t and 4.8 kl (arXiv 2503.05804)."""
    hour, all_of_it = footprint(0.0, 1.0, JUPITER), footprint(0.0, 1.65e6, JUPITER)
    assert (round(hour.embodied_kg, 3), round(hour.embodied_litres, 3)) == (0.013, 0.003)
    assert (round(all_of_it.embodied_kg / 1000), round(all_of_it.embodied_litres / 1000, 1)) == (22, 4.8)


def test_all_of_olmo_3() -> None:
    """12.3 GWh, 4,251 t, 15,887 kl (arXiv 2605.01158)."""
    found = [footprint(kwh, 0.0, Facility(1.0, OLMO3.carbon, 0.0, OLMO3.water_off, "")) for kwh in (12.25e6, 12.3e6, 12.35e6)]
    assert round(found[1].carbon_kg / 1000) == 4251
    assert found[0].water_litres / 1000 < 15_887 < found[2].water_litres / 1000


def test_ten_hours_of_eight_gpus_on_paper() -> None:
    """48 kWh · 1.74 = 83.52; · 0.332 = 27.73 kg; · 1.29 = 107.7 l; 80 hours · 463 / 35,040 = 1.057 kg."""
    found = footprint(48.0, 80.0, Facility(1.74, 0.332, 0.0, 1.29, ""))
    rounded = [round(value, 2) for value in found.values()]
    assert rounded == [48.0, 48.0, 83.52, 27.73, 107.74, 1.06, 0.23]


def test_water_on_site_counts_and_footprints_add_up() -> None:
    facility = Facility(2.0, 0.5, 1.0, 3.0, "")
    assert footprint(1.0, 0.0, facility) == Footprint(1.0, 1.0, 2.0, 1.0, 8.0, 0.0, 0.0)
    assert footprint(1.0, 5.0, facility) + NOTHING == footprint(1.0, 5.0, facility)


def test_what_cpus_and_memory_took_is_not_multiplied_beside_that_of_gpus() -> None:
    """48 kWh of GPUs, 6 of CPUs and 4 of memory: the factor on GPUs stands for the rest, so 48 · 1.74 = 83.52, not 58 · 1.74."""
    found = footprint(48.0, 80.0, OLMO3, beside_kwh=10.0)
    assert (found.measured_kwh, found.gpu_kwh, round(found.facility_kwh, 2)) == (58.0, 48.0, 83.52)
    assert found.carbon_kg == footprint(48.0, 80.0, OLMO3).carbon_kg
    without = footprint(0.0, 0.0, OLMO3, beside_kwh=10.0)
    assert (without.gpu_kwh, round(without.facility_kwh, 2)) == (0.0, 17.4)


def test_a_data_centre_takes_no_less_than_what_was_measured_in_it() -> None:
    """A PUE of 1.2 on 48 kWh of GPUs is 57.6, and 58 were measured."""
    assert footprint(48.0, 80.0, JUPITER, beside_kwh=10.0).facility_kwh == 58.0


def test_another_gpu_has_been_made_otherwise() -> None:
    found = footprint(48.0, 80.0, OLMO3, Making(0.02, 0.005, "", "as given"))
    assert (round(found.embodied_kg, 6), round(found.embodied_litres, 6)) == (1.6, 0.4)
