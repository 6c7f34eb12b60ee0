"""What a user can get wrong, through the command line: one message with place and cure, and nothing half-written."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from tulu.cli import app
from tulu.data.chat import make_byte_tokenizer

TRAIN = {"max_length": 96, "batch": 4, "steps": 3, "learning_rate": 1e-3, "precision": "fp32", "save_every": 1}
RLVR = {"prompts": 2, "samples": 2, "max_prompt": 64, "max_tokens": 4, "engine": "transformers"}
GOOD = '{"prompt": "one", "completion": "two"}\n'


class Place:
    """A folder with a good recipe, model and rows, to be spoilt."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.rows = folder / "rows.jsonl"
        self.rows.write_text(GOOD * 20)
        (folder / "problems.jsonl").write_text('{"prompt": "1 + 1 =", "ground_truth": "2", "dataset": "exact"}\n' * 8)
        sections = {
            "sft": {**TRAIN, "data": str(self.rows)},
            "rlvr": {**TRAIN, **RLVR, "data": str(folder / "problems.jsonl")},
            "evaluate": {"task": "mine", "data": str(folder / "problems.jsonl"), "engine": "transformers"},
        }
        self.recipe = folder / "tiny.yaml"
        self.recipe.write_text(yaml.safe_dump({"name": "tiny", "model": str(model), "template": "tulu", **sections}))
        self.runs = folder / "runs"

    def call(self, stage: str, *changes: str, recipe: str | None = None) -> Result:
        arguments = [stage, recipe or str(self.recipe), *changes, "--runs", str(self.runs)]
        return CliRunner().invoke(app, arguments)


@pytest.fixture
def place(tmp_path: Path, tiny_model: Callable[..., Path]) -> Place:
    return Place(tmp_path, tiny_model("olmo2"))


def half_written(runs: Path) -> list[str]:
    """What a failed command may not leave."""
    return [str(path) for path in runs.rglob("*") if path.name.startswith(".partial-") or path.name == "model"]


def complained(result: Result, code: int, *expected: str) -> None:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    for text in expected:
        assert text in result.stderr
    assert "Traceback" not in result.output


def bare_tokenizer(place: Place) -> list[str]:
    """A model whose tokenizer has no chat template."""
    model = place.folder / "bare"
    shutil.copytree(yaml.safe_load(place.recipe.read_text())["model"], model)
    for file in model.glob("*template*"):
        file.unlink()
    make_byte_tokenizer().save_pretrained(model)
    return [f"model={model}", "template=tokenizer"]


def not_a_model(place: Place) -> list[str]:
    (place.folder / "empty").mkdir()
    return [f"model={place.folder / 'empty'}"]


def cut_weights(place: Place) -> list[str]:
    model = place.folder / "cut"
    shutil.copytree(yaml.safe_load(place.recipe.read_text())["model"], model)
    os.truncate(model / "model.safetensors", 1000)
    return [f"model={model}"]


def rows(text: str, name: str = "bad.jsonl") -> Callable[[Place], list[str]]:
    def write(place: Place) -> list[str]:
        (place.folder / name).write_text(text)
        return [f"sft.data={place.folder / name}"]

    return write


def changes(*texts: str) -> Callable[[Place], list[str]]:
    return lambda place: list(texts)


UNANSWERED = '{"messages": [{"role": "user", "content": "one"}]}\n'
BROKEN = GOOD * 16 + '{"prompt": "one", "completion": \n' + GOOD * 3

# What is wrong -> stage, how it comes about, what the message must say.
MISTAKES: dict[str, tuple[str, Callable[[Place], list[str]], list[str]]] = {
    "wrong key": ("sft", changes("sft.learning_rat=1"), ["sft.learning_rat", "did you mean learning_rate"]),
    "wrong type": ("sft", changes("sft.batch=many"), ['command line: sft.batch: "many": wrong type, should be a whole number']),
    "wrong value": ("sft", changes("sft.batch=-4"), ["sft.batch", "-4"]),
    "wrong combination": ("rlvr", changes("rlvr.batch=5"), ["rlvr", "5", "prompts"]),
    "two mistakes at once": ("sft", changes("sft.batch=many", "dpq=1"), ["sft.batch", "dpq"]),
    "no such section": ("dpo", changes(), ["tiny has no dpo section", "add one"]),
    "unknown template": ("sft", changes("template=tullu"), ['template: "tullu": unknown template', "did you mean tulu"]),
    "tokenizer without a template": ("sft", bare_tokenizer, ["has no chat template", "set template to one of tulu"]),
    "missing data file": ("sft", changes("sft.data=nowhere.jsonl"), ['"nowhere.jsonl": no such file', "correct the path"]),
    "empty file": ("sft", rows(""), ["bad.jsonl: the file is empty", "point data at"]),
    "blank file": ("sft", rows("\n\n"), ["bad.jsonl: holds no rows"]),
    "broken JSON on line 17": ("sft", rows(BROKEN), ["bad.jsonl:17: broken JSON at column", "mend or remove the line"]),
    "no assistant turn": ("sft", rows(UNANSWERED * 4), ["bad.jsonl", "no assistant turn", "bad.jsonl:1"]),
    "unknown columns": ("sft", rows('{"a": 1}\n'), ["bad.jsonl:1: no columns for sft among a", "accepted are"]),
    "unknown kind of file": ("sft", rows(GOOD, "bad.docx"), ["bad.docx: unknown kind of file", ".jsonl"]),
    "broken gzip": ("sft", rows("\x1f", "bad.parquet"), ["bad.parquet: broken Parquet file"]),
    "a folder that is no model": (
        "sft",
        not_a_model,
        ["is a folder without config.json", "name a Hugging Face model folder"],
    ),
    "a model that does not exist": (
        "sft",
        changes("model=./nowhere"),
        ['model: "./nowhere": no such folder', "correct the path"],
    ),
    "weights cut short": ("sft", cut_weights, ["cut: has a model.safetensors (1,000 bytes)", "copy this file again"]),
    "unknown verifier": ("rlvr", changes("rlvr.verifier=gsm9k"), ["gsm9k", "gsm8k"]),
    "unknown task": ("evaluate", changes("evaluate.task=gsm9k", "evaluate.data=null"), ["gsm9k", "gsm8k"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named_with_place_and_cure(mistake: str, place: Place) -> None:
    stage, spoil, expected = MISTAKES[mistake]
    result = place.call(stage, *spoil(place))
    complained(result, 2, *expected)
    assert half_written(place.runs) == []
    if not mistake.startswith("unknown task"):
        # The same folder takes the command once it is right: nothing of the failed one stands in its way.
        assert not list(place.runs.rglob("checkpoints"))


def test_missing_recipe(place: Place) -> None:
    complained(place.call("sft", recipe="quickstat"), 2, "quickstat: no such recipe", "did you mean quickstart")
    complained(place.call("sft", recipe=str(place.folder / "no.yaml")), 2, "no.yaml: no such recipe")


def test_a_recipe_that_is_not_yaml(place: Place) -> None:
    place.recipe.write_text("name: tiny\nsft: {data: [\n")
    complained(place.call("sft"), 2, "tiny.yaml")


def test_a_mistake_on_a_line_of_the_recipe(place: Place) -> None:
    lines = place.recipe.read_text().splitlines()
    place.recipe.write_text("\n".join([*lines, "tempalte: olmo"]) + "\n")
    complained(place.call("sft"), 2, "tempalte", f"{len(lines) + 1}", "did you mean template")


def test_unanswered_rows_are_counted_and_named_and_the_others_are_trained(place: Place) -> None:
    place.rows.write_text(GOOD * 3 + UNANSWERED + GOOD * 3)
    place.rows.write_text(
        place.rows.read_text().replace(
            GOOD, '{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}\n'
        )
    )
    result = place.call("sft")
    assert result.exit_code == 0, result.output
    assert "6 of 7 rows used" in result.output
    assert "no assistant turn" in result.output
    assert "rows.jsonl:4" in result.output


def test_unknown_task_on_the_command_line(tiny_model: Callable[..., Path]) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(tiny_model("olmo2")), "--task", "gsm9k"])
    complained(result, 2, "--task gsm9k: has no data of its own", "or give --data FILE")


def test_a_mistake_is_mended_and_the_same_command_goes_through(place: Place) -> None:
    place.rows.write_text(BROKEN)
    complained(place.call("sft"), 2, "rows.jsonl:17")
    place.rows.write_text(GOOD * 20)
    result = place.call("sft")
    assert result.exit_code == 0, result.output


def test_of_damaged_checkpoints_the_last_whole_one_is_taken_and_none_left_is_refused(place: Place) -> None:
    assert place.call("sft").exit_code == 0
    folder = place.runs / "tiny" / "sft"
    weights = (folder / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(folder / "model")
    newest = folder / "checkpoints" / "step-000003"
    largest = max(newest.iterdir(), key=lambda file: file.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:-4000] + b"\xff" * 4000)
    result = place.call("sft")
    assert result.exit_code == 0, result.output
    assert f"step-000003 is damaged: {largest.name} is not what was written" in result.output
    assert "step-000002; what is damaged is put aside" in result.output
    assert "at step 2" in result.output
    assert (folder / "model" / "model.safetensors").read_bytes() == weights, "the step was done again"
    assert not list(place.runs.rglob(".partial-*"))
    shutil.rmtree(folder / "model")
    for checkpoint in (folder / "checkpoints").iterdir():
        os.truncate(checkpoint / "optimizer.bin", 4000)
    complained(place.call("sft"), 2, "step-000003 is damaged: optimizer.bin has 4000 bytes of", "No whole checkpoint", "--fresh")
    assert not (folder / "model").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """disk(bytes) -> a folder on a disk of that size; mounting it again changes the size and keeps the files."""
    folder = tmp_path / "disk"

    def mount(size: int) -> Path:
        options = f"remount,size={size}" if os.path.ismount(folder) else f"size={size}"
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.decode().strip()}")
        return folder

    if shutil.which("mount") is None:
        pytest.skip("no small disk can be mounted here: there is no mount command")
    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


def used(folder: Path) -> int:
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("what", ["first checkpoint", "second checkpoint", "model"])
def test_a_full_disk_is_a_message_and_with_room_the_run_goes_on(what: str, place: Place, disk: Callable[[int], Path]) -> None:
    whole = place.call("sft")
    assert whole.exit_code == 0, whole.output
    folder = place.runs / "tiny" / "sft"
    checkpoint = used(folder / "checkpoints" / "step-000003")
    before = used(place.runs) - used(folder / "model") - 2 * checkpoint
    room = {"first checkpoint": 0.5 * checkpoint, "second checkpoint": 1.5 * checkpoint, "model": 2 * checkpoint}[what]
    # A model is smaller than a checkpoint: two fit, a third beside them, which comes before the oldest goes, and no model.
    keep = ["sft.keep_checkpoints=3"] if what == "model" else []
    room += checkpoint + 0.5 * used(folder / "model") if what == "model" else 0

    expected = (folder / "model" / "model.safetensors").read_bytes()
    place.runs = disk(int(before + room) + 65536)
    failed = place.call("sft", *keep)
    saved = "the model could not be written" if what == "model" else "the checkpoint could not be written"
    complained(failed, 1, saved, "ree some space")
    assert half_written(place.runs) == []
    done = {"first checkpoint": 0, "second checkpoint": 1, "model": 3}[what]
    assert len(list(place.runs.rglob("step-*"))) == done

    disk(1 << 26)
    again = place.call("sft", *keep)
    assert again.exit_code == 0, again.output
    if done:
        assert f"at step {done}" in again.output
    assert (place.runs / "tiny" / "sft" / "model" / "model.safetensors").read_bytes() == expected
    assert half_written(place.runs) == [str(place.runs / "tiny" / "sft" / "model")]
    lines = (place.runs / "tiny" / "sft" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
from tulu.cli import main
main()
"""


def test_a_quota_on_files_is_a_message(place: Place) -> None:
    """Also where nothing can be mounted: no file may grow beyond 20 kB, which rows and recipe do not and weights do."""
    arguments = [sys.executable, "-c", LIMITED, "sft", str(place.recipe), "--runs", str(place.runs)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert "step-000001: the checkpoint could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert half_written(place.runs) == []
    assert place.call("sft").exit_code == 0


def test_a_full_disk_before_anything_is_trained(place: Place, disk: Callable[[int], Path]) -> None:
    place.runs = disk(4096)
    result = place.call("sft")
    assert result.exit_code in (1, 2)
    complained(result, result.exit_code, "ree some space", os.strerror(errno.ENOSPC))
    assert half_written(place.runs) == []


def test_a_folder_that_may_not_be_written(place: Place) -> None:
    place.runs.write_text("a file where a folder should be")
    complained(place.call("sft"), 2, str(place.runs), "a file stands where a folder belongs")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("fake.jsonl.gz", b'{"a": 1}\n', "not a gzip file, whatever its name says"),
        ("wide.jsonl", '{"a": 1}\n'.encode("utf-16"), "wide.jsonl:1: not UTF-8 but UTF-16"),
    ],
)
def test_files_that_are_not_what_they_seem(place: Place, name: str, content: bytes, expected: str) -> None:
    (place.rows.parent / name).write_bytes(content)
    complained(place.call("sft", f"sft.data={place.rows.parent / name}"), 2, expected)
