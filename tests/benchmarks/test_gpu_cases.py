"""Cases within a budget: each ends as ok, failed or skipped, and none stops the rest."""

import logging
import time

from benchmarks.gpu_cases import Case, Failed, Figures, Unsuitable, attempt, try_all


def fails() -> Figures:
    raise Failed("off by 3", {"off": 3})


def breaks() -> Figures:
    raise RuntimeError("no such kernel")


def does_not_fit() -> Figures:
    raise Unsuitable("needs 99 GiB")


def test_no_case_stops_the_rest() -> None:
    told: list[str] = []
    cases = [Case("a", 0, fails), Case("b", 0, breaks), Case("c", 0, does_not_fit), Case("d", 1e9, breaks), Case("e", 0, dict)]
    outcomes = try_all(cases, time.monotonic() + 100, lambda outcome: told.append(outcome.name))
    assert told == ["a", "b", "c", "d", "e"]
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "skipped", "skipped", "ok"]
    assert outcomes[0].figures == {"off": 3}
    assert [outcome.note for outcome in outcomes[:3]] == ["off by 3", "RuntimeError: no such kernel", "needs 99 GiB"]
    assert "1000000000 s" in outcomes[3].note


def test_a_case_that_takes_too_long_is_broken_off() -> None:
    def endless() -> Figures:
        while True:
            time.sleep(0.01)

    began = time.monotonic()
    outcome = attempt(Case("endless", 0, endless), 0.2)
    assert (outcome.status, time.monotonic() - began < 60) == ("failed", True)
    assert "the time is up" in outcome.note


def test_what_the_project_says_is_kept() -> None:
    def speaks() -> Figures:
        logging.getLogger("tulu").info("attention on a card: flash attention 3")
        return {}

    assert attempt(Case("speaks", 0, speaks), 10).log == ("attention on a card: flash attention 3",)
