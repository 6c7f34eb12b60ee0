"""What answers are worth: unbiased pass@k, groups, directions, win rates at equal length, and published averages."""

import math

import pytest

from tulu.config.suites import built_in_suites, load_suite
from tulu.evaluation.candidates import Candidate, ScoredProblem
from tulu.evaluation.judged import length_controlled
from tulu.evaluation.suite_scores import TaskScore, accepted_answers, average, contains, mean_score, score_of, value_of
from tulu.intervals import wilson

TULU3_DEV = {
    # Model card of allenai/Llama-3.1-Tulu-3-8B, in the order of its rows, with the average that it prints.
    "Tülu 3 8B SFT": ([65.9, 29.3, 46.8, 67.9, 61.3, 31.5, 76.2, 86.2, 81.4, 72.8, 12.4, 93.1], 60.4),
    "Tülu 3 8B DPO": ([68.7, 29.3, 56.1, 65.8, 62.5, 42.0, 84.3, 83.9, 78.6, 81.1, 33.5, 87.2], 64.4),
    "Tülu 3 8B": ([68.2, 29.1, 55.0, 66.0, 62.6, 43.7, 87.6, 83.9, 79.2, 82.4, 34.5, 85.5], 64.8),
    "Tülu 3 70B": ([83.1, 46.5, 67.6, 82.0, 74.3, 63.0, 93.5, 92.4, 88.0, 83.2, 49.8, 88.3], 76.0),
}
ROWS = ["mmlu", "popqa", "truthfulqa", "bbh", "drop", "math", "gsm8k", "humaneval", "humaneval_plus", "ifeval"]
ROWS += ["alpaca_eval", "safety"]
OLMO2 = {
    # Model card of allenai/OLMo-2-1124-7B-Instruct.
    "Gemma-2-9B-it": ([43.7, 2.5, 58.8, 79.7, 69.9, 29.8, 69.1, 75.5, 28.3, 61.4], 51.9),
    "Llama-3.1-8B-Instruct": ([25.8, 69.7, 61.7, 83.4, 80.6, 42.5, 71.3, 70.2, 28.4, 55.1], 58.9),
}
COLUMNS = ["alpaca_eval", "bbh", "drop", "gsm8k", "ifeval", "math", "mmlu", "safety", "popqa", "truthfulqa"]


def scored(name: str, score: float, low: float | None = None, high: float | None = None, better: str = "higher") -> TaskScore:
    interval = (score if low is None else low, score if high is None else high)
    return TaskScore(name, name, "accuracy", better, score, interval, 1, 1)


@pytest.mark.parametrize(
    ("suite", "rows", "figures"),
    [("tulu3-dev", ROWS, row) for row in TULU3_DEV.values()] + [("olmo2", COLUMNS, row) for row in OLMO2.values()],
)
def test_the_average_is_that_of_the_report(suite: str, rows: list[str], figures: tuple[list[float], float]) -> None:
    scores = {name: scored(name, value / 100) for name, value in zip(rows, figures[0], strict=True)}
    mean, _, lacking = average(load_suite(suite), scores)
    assert round(100 * mean, 1) == figures[1]
    assert lacking == []


@pytest.mark.parametrize("name", built_in_suites())
def test_a_suite_of_the_package_says_where_it_is_from(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    for task_name, task in suite.tasks.items():
        assert task.differs, f"{name}: {task_name} says nothing of the original harness"
        assert task.data or task.obtain or task.harness, f"{name}: {task_name} has no data, and no word of where it is"
        assert task.title


def problem(*scores: float | None, truth: object = "", text: str = "") -> ScoredProblem:
    return ScoredProblem("p", [], truth, tuple(Candidate(text, "stop", 1, score) for score in scores))


def test_pass_at_k_is_the_share_of_all_draws() -> None:
    # Chen et al.: 1 - C(17, 10) / C(20, 10) = 1 - 19448 / 184756.
    twenty = problem(*[1.0] * 3, *[0.0] * 17)
    assert value_of("pass@10")(twenty) == pytest.approx(1 - 19448 / 184756)
    assert value_of("pass@1")(twenty) == pytest.approx(3 / 20)
    assert value_of("pass@1")(problem(0.9, 1.0)) == 0.5, "nine of ten tests is not passed"
    assert value_of("pass@2")(problem(1.0, 0.0, None)) is None, "the third may have been right"


def test_what_a_metric_makes_of_a_score() -> None:
    half = problem(0.5, 1.0, None)
    assert value_of("accuracy")(half) == 0.75
    assert value_of("solved")(half) == 0.5
    assert value_of("agreed")(half) == 1.0
    assert value_of("accuracy")(problem(None)) is None


def test_an_accepted_text_stands_in_the_answer() -> None:
    assert contains("He was a politician.", "Politician")
    assert contains("Politician", "politician")
    assert not contains("POLITICIAN", "politician"), "PopQA tries no more than three spellings"
    assert accepted_answers('["a", "b"]') == ["a", "b"]
    assert accepted_answers("[sic] Rome") == ["[sic] Rome"], "what only begins like a list is a text"
    assert value_of("contains")(problem(0.0, truth=["x", "Rome"], text="in Rome")) == 1.0


def test_scores_and_intervals() -> None:
    assert score_of([("", 1.0), ("", 0.0), ("", 1.0), ("", 1.0)]) == (0.75, wilson(0.75, 4))
    score, (low, high) = score_of([("a", 1.0), ("a", 0.0), ("b", 1.0), ("b", 1.0), ("b", 1.0), ("b", 1.0)])
    assert score == 0.75, "1/2 and 1, whatever their sizes"
    assert (low, high) == (0.5, 1.0), "only the two problems of a vary"
    assert math.isnan(score_of([])[0])
    assert score_of([("", 0.25), ("", 0.75)])[0] == 0.5


def test_half_widths_of_independent_scores_add_up_as_squares() -> None:
    mean, (low, high) = mean_score([scored("a", 0.5, 0.47, 0.53), scored("b", 0.3, 0.26, 0.34)])
    assert mean == pytest.approx(0.4)
    assert [low, high] == pytest.approx([0.4 - 0.05 / 2, 0.4 + 0.05 / 2]), "√(3² + 4²) = 5"


def test_a_score_that_is_better_when_lower_counts_the_other_way() -> None:
    mean, (low, high) = mean_score([scored("a", 0.2, 0.1, 0.4, better="lower")])
    assert [mean, low, high] == pytest.approx([0.8, 0.6, 0.9])


def test_a_win_rate_at_equal_length() -> None:
    # Longer answers win 3 of 4, shorter ones 1 of 2: the logits are ln 3 and 0, and their mean ln 3 / 2.
    wins = [1, 1, 1, 0, 1, 1, 0, 0] * 50
    lengths = [(20, 10)] * 4 + [(10, 20)] * 4
    rate, (low, high) = length_controlled(wins, lengths * 50)
    assert rate == pytest.approx(1 / (1 + math.exp(-math.log(3) / 2)), abs=1e-3)
    assert low < rate < high
    equal, _ = length_controlled([1, 1, 1, 0] * 25, [(7, 7)] * 100)
    assert equal == pytest.approx(0.75, abs=1e-3)
    always, _ = length_controlled([1.0] * 10, [(2, 1)] * 10)
    assert 0.99 < always <= 1, "what is never lost has a figure too"
