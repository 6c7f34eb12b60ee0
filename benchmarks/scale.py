"""What a mix as large as Tülu 3's costs outside the model: made-up rows of its number and lengths, and a tiny model.

    python -m benchmarks.scale --folder /tmp/scale                       939,343 rows and 350,000 pairs: about an hour
    python -m benchmarks.scale --rows 50000 --pairs 20000 --parts sft    smaller, and one part alone

Lengths are log-normal with a mean of about 700 tokens and at most 4,096; one row in seven has two exchanges. The text is that
of GSM8K and HH-RLHF, cut at random places. `tokenise` compares this project, the bare tokenizer and TRL on the same rows with
the same number of processes; `sft` and `dpo` time a cold and a warm start, a resume and the steps; `data` times `tulu data`.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import PreTrainedTokenizerFast

from benchmarks import material
from benchmarks.scale_child import Start
from tulu.config.cores import cores
from tulu.config.load import load_recipe
from tulu.config.schema import Source
from tulu.config.stages import STAGES
from tulu.data.chat import apply_template
from tulu.data.datasets import entry_folder
from tulu.data.row_report import RowReport
from tulu.data.token_cache import Arrays, Groups, PartWriter, open_part
from tulu.data.tokenise import TokeniseOptions
from tulu.model.policy import Policy
from tulu.train.reference import write_mix

ROWS, PAIRS = 939_343, 350_000
"""Rows of allenai/tulu-3-sft-mixture, and about those of the preference mixes."""
MEAN, SIGMA, LONGEST = 700, 1.0, 4096
"""Of the log-normal number of tokens of a row."""
VOCABULARY = 16_384
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
PARTS = ("tokenise", "sft", "data", "dpo")
STEPS = 3
"""Optimizer steps that are really taken, of a few rows: the model is not what is measured."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--sample", type=int, default=20_000, help="rows of the comparison with TRL")
    parser.add_argument("--folder", type=Path, help="where everything is written; default: a temporary folder")
    parser.add_argument("--prefill", action="store_true", help="make up tokens too, so that only warm starts are timed")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args(arguments)
    os.environ.update(QUIET)
    with tempfile.TemporaryDirectory(prefix="tulu-scale-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = measure(folder, options.rows, options.pairs, options.sample, options.parts, options.prefill)
        (folder / "scale.json").write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(folder: Path, rows: int, pairs: int, sample: int, parts: Sequence[str], made_up: bool = False) -> dict[str, Any]:
    """The figures of each part, printed as they come."""
    figures: dict[str, Any] = {"rows": rows, "pairs": pairs, "cores": cores()}
    tokenizer = make(folder, rows, pairs)
    steps = {
        "tokenise": lambda: compare_tokenisers(folder, tokenizer, min(sample, rows)),
        "sft": lambda: starts(folder, "sft"),
        "data": lambda: seconds_of(["data", str(recipe(folder, "sft"))], folder),
        "dpo": lambda: starts(folder, "dpo"),
    }
    if made_up:
        for stage, count in (("sft", rows), ("dpo", pairs)):
            prefill(folder, stage, count, tokenizer)
    for part in parts:
        load = os.getloadavg()[0]
        figures[part] = {"load before": round(load, 1), **steps[part]()}
        print(f"{part}: {json.dumps(figures[part], indent=2)}", flush=True)
    return figures


# -- what is made ----------------------------------------------------------------------------------------------------------


def make(folder: Path, rows: int, pairs: int) -> PreTrainedTokenizerFast:
    """Write rows.jsonl, pairs.jsonl and the model, unless they are there."""
    text = corpus()
    material.VOCABULARY = VOCABULARY
    if not (folder / "model" / "config.json").is_file():
        tokenizer = material.train_tokenizer([text[place : place + 2000] for place in range(0, len(text), 2000)])
        material.save_random_model(folder / "model", tokenizer, {**SHAPE, "max_position_embeddings": LONGEST})
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "model")
    ratio = len(text[:500_000]) / len(tokenizer(text[:500_000])["input_ids"])
    for name, count, kind in (("rows", rows, conversations), ("pairs", pairs, preferences)):
        file = folder / f"{name}-{count}.jsonl"
        if not file.exists():
            partial = file.with_suffix(".partial")
            with partial.open("w") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in kind(text, count, ratio))
            partial.rename(file)
        link = folder / f"{name}.jsonl"
        link.unlink(missing_ok=True)
        link.symlink_to(file.name)
    return tokenizer


def prefill(folder: Path, stage: str, count: int, tokenizer: PreTrainedTokenizerFast) -> None:
    """Put made-up tokens of so many rows where the stage looks for those of its file; of pairs also reference log-probs."""
    apply_template(tokenizer, "tulu")
    section = load_recipe(str(recipe(folder, stage)), (), 1, stage).model_dump()[stage]
    source, options = Source(**section["data"][0]), TokeniseOptions(STAGES[stage].rows, LONGEST)
    entry = entry_folder(source, tokenizer, options, folder / "runs" / ".cache", section["seed"])
    sides = 1 if stage == "sft" else 2
    if not entry.exists():
        with PartWriter(source.name, entry) as writer:
            for first in range(0, count, 5000):
                rows = range(first, min(count, first + 5000))
                writer.add(made_up_arrays(rows, sides, source.name), RowReport("", rows=len(rows)))
            writer.part()
    if sides == 2:
        weights = Policy.load(folder / "model", template="tulu").digest()
        cache = folder / "runs" / ".cache" / "reference" / f"{weights}-fp32"
        write_mix(cache / f"mix-{Groups([open_part(entry)]).digest}", np.linspace(-300, -1, sides * count, dtype=np.float32))


def made_up_arrays(rows: range, sides: int, name: str) -> Arrays:
    """Random tokens of prompts and answers that are as long as those of real rows."""
    random_state = np.random.RandomState(rows.start)
    tokens = np.minimum(random_state.lognormal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, len(rows)), LONGEST).astype(int) + 3
    shares = np.linspace(0, 1, sides + 2)[1:]
    ends = np.cumsum(tokens)[:, None] - tokens[:, None] + np.maximum(1, tokens[:, None] * shares).astype(int)
    bounds = np.concatenate([[0], ends.ravel()])
    trained = np.zeros(bounds[-1], bool)
    for prompt_end, end in zip(ends[:, 0], ends[:, -1], strict=True):
        trained[prompt_end:end] = True
    ids = [f"{name}:{row + 1}".encode() for row in rows]
    return Arrays(
        random_state.randint(10, VOCABULARY, bounds[-1]).astype(np.int32),
        trained,
        bounds,
        np.arange(len(rows) + 1) * (sides + 1),
        np.zeros(len(rows)),
        np.frombuffer(b"".join(ids), np.uint8),
        np.cumsum([len(each) for each in ids]),
    )


def corpus() -> str:
    """The questions, answers and conversations of GSM8K and HH-RLHF, shuffled."""
    shared = material.shared_folder()
    texts = [text for row in material.read_rows(shared / material.GSM8K) for text in row.values()]
    texts += [
        row["chosen"].replace("\n\nHuman: ", "\n").replace("\n\nAssistant: ", "\n")
        for row in material.read_rows(shared / material.HH)
    ]
    random.Random(0).shuffle(texts)
    return "\n".join(texts)


def pieces(text: str, count: int, ratio: float, parts: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
    """(number, texts) of every row: a piece of the corpus of log-normal length, cut into as many texts as `parts` allows."""
    random_state = np.random.RandomState(count)
    tokens = np.minimum(random_state.lognormal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, count), LONGEST)
    for number, length in enumerate((tokens * ratio).astype(int) + len(parts)):
        start = random_state.randint(0, len(text) - length)
        cuts = sorted(random_state.randint(0, length, parts[number % len(parts)] - 1).tolist())
        ends = [0, *cuts, int(length)]
        yield number, [text[start + a : start + b].strip() or "yes" for a, b in zip(ends, ends[1:], strict=False)]


def conversations(text: str, count: int, ratio: float) -> Iterator[dict[str, Any]]:
    """Rows as those of the SFT mix."""
    for number, texts in pieces(text, count, ratio, (2, 2, 2, 2, 2, 2, 4)):
        messages = [{"role": ("user", "assistant")[turn % 2], "content": content} for turn, content in enumerate(texts)]
        yield {"id": f"made-{number}", "messages": messages, "source": "made"}


def preferences(text: str, count: int, ratio: float) -> Iterator[dict[str, Any]]:
    """Rows as those of the preference mixes: a prompt with two answers."""
    for number, (prompt, chosen, rejected) in pieces(text, count, ratio, (3,)):
        yield {"id": f"made-{number}", "prompt": prompt, "chosen": chosen, "rejected": f"{rejected} {number}"}


def recipe(folder: Path, stage: str) -> Path:
    """A recipe of one stage that takes so few steps that only the start counts."""
    section: dict[str, Any] = {
        "data": str(folder / ("rows.jsonl" if stage == "sft" else "pairs.jsonl")),
        "max_length": LONGEST,
        "batch": 4,
        "steps": STEPS,
        "save_every": 1,
        "learning_rate": 1e-4,
        "precision": "fp32",
    }
    content = {"name": f"scale-{stage}", "model": str(folder / "model"), "template": "tulu", stage: section}
    file = folder / f"{stage}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


# -- what is measured ------------------------------------------------------------------------------------------------------


def starts(folder: Path, stage: str) -> dict[str, Any]:
    """A cold start, a warm one of another run, and a resume of that one."""
    file = recipe(folder, stage)
    figures: dict[str, Any] = {}
    for name in (f"scale-{stage}", "again"):
        shutil.rmtree(folder / "runs" / name, ignore_errors=True)
    for name, overrides in (("first", []), ("warm", ["name=again"]), ("resume", ["name=again"])):
        if name == "resume":
            unfinish(folder / "runs" / "again" / stage)
        figures[name] = run_child(folder, stage, file, overrides)
    return figures


def unfinish(run: Path) -> None:
    """Take a finished run back to its last checkpoint but one."""
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "finished": False}))
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    newest.rename(newest.with_name(f"aside-{newest.name}"))


def run_child(folder: Path, stage: str, file: Path, overrides: Sequence[str]) -> Start:
    """Run the stage in a process of its own, which reports about itself."""
    target = folder / "start.json"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.scale_child", stage, str(target), str(folder / "runs"), str(file), *overrides]
    subprocess.run(command, check=True, cwd=Path(__file__).resolve().parents[1])
    start: Start = json.loads(target.read_text())
    return start


def seconds_of(arguments: Sequence[str], folder: Path) -> dict[str, float]:
    """Seconds of a command, first as it comes and then again, its largest process's memory included."""
    figures: dict[str, float] = {}
    for name in ("first", "again"):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "tulu", *arguments], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        figures[name] = round(time.monotonic() - began, 1)
    return figures


def compare_tokenisers(folder: Path, tokenizer: PreTrainedTokenizerFast, count: int) -> dict[str, Any]:
    """Rows a second of this project, of the bare tokenizer and of TRL, in turns: best of two.

    CPU time is given beside it, because on a busy machine the clock tells more of the others.
    """
    from benchmarks.scale_sides import bare, ours, trl

    file = folder / f"sample-{count}.jsonl"
    with (folder / "rows.jsonl").open() as rows:
        file.write_text("".join(line for line, _ in zip(rows, range(count), strict=False)))
    processes = cores()
    seconds: dict[str, tuple[float, float]] = {}
    with open(os.devnull, "w") as nowhere:
        for _ in range(2):
            for name, side in (("tulu", ours), ("bare", bare), ("trl", trl)):
                with redirect_stdout(nowhere):
                    taken = side(file, folder / "model", tokenizer, processes, get_context("fork"))
                best = seconds.get(name, taken)
                seconds[name] = (min(taken[0], best[0]), min(taken[1], best[1]))
    figures: dict[str, Any] = {"processes": processes, "sample": count}
    for place, clock in enumerate(("by the clock", "by CPU time")):
        speed = {name: count / taken[place] for name, taken in seconds.items()}
        figures[clock] = {f"{name}, rows/s": round(rows, 1) for name, rows in speed.items()}
        figures[clock] |= {f"tulu's speed / {name}'s": round(speed["tulu"] / speed[name], 2) for name in ("trl", "bare")}
    return figures


if __name__ == "__main__":
    sys.exit(main())
