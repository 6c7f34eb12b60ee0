"""Measures verdicts per second on groups of eight completions that partly repeat, as in training.

Run it as `python -m benchmarks.verifiers`.

math: 60 % integers, the rest fractions, surds, polynomials, intervals, some trigonometry and complex numbers; compared with
calling math-verify directly, which is given the box of each completion. ifeval: three instructions a row on answers of 150 words.
code: eight assertions a program, one sandbox each. Writes benchmarks/results/verifiers.json.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tulu.errors import RecipeError
from tulu.files import write_atomic
from tulu.grading.grader import Grader
from tulu.types import Problem
from tulu.verifiers.code import sandbox
from tulu.verifiers.math import certify, read, verifier

GROUP = 8
ROUNDS = 3
Item = tuple[str, Problem]
THINKING = "<think>Let me see. We have to be careful here, so I compute it twice. </think>"
TEXT = (
    "The museum opens at nine in the morning and closes at five in the afternoon. Visitors may leave their bags at the desk "
    "near the entrance. Children under twelve pay nothing, and students pay half. There is a small cafe on the second floor "
    "where soup and bread are served until three. Guided tours start every hour and take about forty minutes. "
)


def problem(name: str, number: int, gold: Any) -> Problem:
    """One row of a benchmark."""
    return Problem(f"{name}:{number}", [{"role": "user", "content": "?"}], (), gold, (name,))


def _math_answers(draw: random.Random) -> tuple[str, list[str], list[str]]:
    """A gold answer, the same in other spellings, and wrong answers."""
    a, b, c = (draw.randrange(2, 60) for _ in range(3))
    kind = draw.random()
    if kind < 0.6:
        return str(a * b), [str(a * b), f"{a * b}.0", f"x = {a * b}"], [str(a * b + c)]
    if kind < 0.75:
        fraction = rf"\frac{{{a}}}{{{a + c}}}"
        return fraction, [rf"\dfrac{{{a}}}{{{a + c}}}", f"{2 * a}/{2 * (a + c)}"], [rf"\frac{{{a + 1}}}{{{a + c}}}"]
    if kind < 0.85:
        return rf"{a}\sqrt{{{b}}}", [rf"\sqrt{{{a * a * b}}}", rf"{a}\sqrt{{{b}}}"], [rf"{a + 1}\sqrt{{{b}}}"]
    if kind < 0.95:
        polynomial = f"x^2+{a + b}x+{a * b}"
        return polynomial, [f"(x+{a})(x+{b})", polynomial], [f"x^2+{a}x+{b}"]
    if kind < 0.98:
        return f"({a},{a + b}]", [f"({a}, {a + b}]"], [f"[{a},{a + b}]", rf"({a},\infty)"]
    if kind < 0.99:
        return rf"{a}\sin({b}x)", [rf"\sin({b}x)\cdot {a}", rf"{a}\sin {b}x"], [rf"{b}\cos({b}x)"]
    return f"{a}+{b}i", [f"{b}i+{a}", rf"\frac{{{2 * a}+{2 * b}i}}{{2}}"], [f"{a}-{b}i"]


def math_items(groups: int) -> list[Item]:
    """Boxed answers, eight a group, of which several repeat; the row says whether an answer is right."""
    draw, items = random.Random(7), list[Item]()
    for number in range(groups):
        gold, right, wrong = _math_answers(draw)
        for _ in range(GROUP):
            answer = draw.choice([*right, *wrong])
            row = problem("math", number, gold)
            items.append((rf"{THINKING}So the answer is \boxed{{{answer}}}.", replace(row, row={"right": answer in right})))
    return items


def ifeval_items(groups: int) -> list[Item]:
    """Three instructions a row, half of them followed."""
    instructions: list[tuple[str, dict[str, Any]]] = [
        ("length_constraints:number_words", {"num_words": 100, "relation": "at least"}),
        ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"}),
        ("keywords:existence", {"keywords": ["museum", "cafe"]}),
        ("keywords:forbidden_words", {"forbidden_words": ["soup"]}),
        ("language:response_language", {"language": "en"}),
        ("punctuation:no_comma", {}),
        ("change_case:english_lowercase", {}),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}),
        ("count:pronouns", {"N": 5}),
        ("words:no_consecutive", {}),
        ("ratio:stop_words", {"percentage": 40}),
        ("sentence:keyword", {"word": "museum", "N": 1}),
    ]
    draw, items = random.Random(7), list[Item]()
    for number in range(groups):
        chosen = draw.sample(instructions, 3)
        gold = {"instruction_id": [name for name, _ in chosen], "kwargs": [values for _, values in chosen]}
        texts = [TEXT * 2, f"{draw.randrange(999)} " + TEXT * 2, TEXT, TEXT.lower()]
        items += [(f"{THINKING}{draw.choice(texts)}{draw.randrange(999)}", problem("ifeval", number, gold)) for _ in range(GROUP)]
    return items


def code_items(count: int) -> list[Item]:
    """Small programs, all different, each with eight assertions."""
    tests = [f"assert f([{n}, 3, {n + 1}]) == [3, {n}, {n + 1}]" for n in range(4, 12)]
    source = "def f(items):\n    # {}\n    return sorted(items)"
    return [(f"```python\n{source.format(number)}\n```", problem("code", number, tests)) for number in range(count)]


def direct(items: Sequence[Item]) -> tuple[float, dict[str, int]]:
    """Verdicts per second of math-verify on the same answers, one after the other in this thread, and how both sides fare."""
    from math_verify import parse, verify

    parse("$1$"), verify(parse("$1$"), parse("$1$"))
    began, theirs = time.perf_counter(), list[bool]()
    for completion, row in items:
        theirs.append(bool(verify(parse(f"${row.ground_truth}$"), parse(completion.rpartition("</think>")[2]))))
    rate = len(items) / (time.perf_counter() - began)
    counts = dict.fromkeys(("both_right", "only_ours_right", "only_math_verify_right", "both_wrong"), 0)
    for (completion, row), other in zip(items, theirs, strict=True):
        ours = verifier.MATH(completion, row.ground_truth).score == 1
        outcome = (ours == row.row["right"], other == row.row["right"])
        name = {(True, True): "both_right", (True, False): "only_ours_right", (False, True): "only_math_verify_right"}
        counts[name.get(outcome, "both_wrong")] += 1
    return rate, counts


def measure(name: str, items: Sequence[Item], workers: int) -> dict[str, Any]:
    """Verdicts per second, every round with cold caches, and how long one verdict takes."""
    per_second, latencies = list[float](), list[float]()
    for _ in range(ROUNDS):
        for cached in (verifier._graded, verifier._gold, read.read, certify.same):
            cached.cache_clear()
        with Grader(workers) as grader:
            # The workers start before the measurement does.
            grader.grade(
                [
                    items[0],
                    *(
                        (rf"\boxed{{e^{{900}}+\sqrt{n}-e^{{900}}}}", problem("math", 0, rf"\sqrt{n}"))
                        for n in range(2, 2 + 2 * workers)
                    ),
                ]
            )
            began = time.perf_counter()
            grader.grade(items)
            per_second.append(len(items) / (time.perf_counter() - began))
            latencies += grader.seconds
    latencies.sort()
    return {
        "name": name,
        "verdicts": len(items),
        "per_second": round(statistics.median(per_second), 1),
        "per_second_rounds": [round(rate, 1) for rate in per_second],
        "p50_ms": round(1000 * latencies[len(latencies) // 2], 3),
        "p99_ms": round(1000 * latencies[int(0.99 * len(latencies))], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Verdicts per second.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--groups", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "verifiers.json")
    options = parser.parse_args()
    results = [
        measure("math", math_items(options.groups), options.workers),
        measure("ifeval", ifeval_items(options.groups), options.workers),
    ]
    try:
        sandbox.require()
        results.append(measure("code", code_items(options.groups // 4), options.workers))
    except RecipeError as fault:
        print(f"code left out: {fault}", file=sys.stderr)
    alone, agreement = direct(math_items(options.groups)[: 40 * GROUP])
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "workers": options.workers,
        "results": results,
        "math_verify_direct_per_second": round(alone, 1),
        "math_verify_agreement": agreement,
        "math_over_direct": round(results[0]["per_second"] / alone, 1),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out, json.dumps(report, indent=2) + "\n")
    for row in results:
        print(f"{row['name']:8s} {row['per_second']:8.1f} verdicts/s   p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms")
    print(f"math-verify alone {alone:.1f} verdicts/s")


if __name__ == "__main__":
    main()
