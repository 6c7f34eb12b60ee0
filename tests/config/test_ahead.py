"""What the last of several stages would find after hours is told before the first begins."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.test_bad_input import Place, complained
from tulu.cli import app
from tulu.config import vllm_import
from tulu.config.ahead import look_ahead
from tulu.config.load import load_recipe
from tulu.config.positions import longest_document
from tulu.config.stages import STAGES

BROKEN = 'raise ImportError("libcudart.so.12: cannot open shared object file")\n'


@pytest.fixture
def place(tmp_path: Path, tiny_model: Callable[..., Path]) -> Place:
    return Place(tmp_path, tiny_model("olmo2"))


@pytest.fixture
def broken_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A vLLM that is installed and cannot be imported."""
    package = tmp_path / "packages" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.syspath_prepend(package.parent)
    for name in [name for name in sys.modules if name == "vllm" or name.startswith("vllm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vllm_import.import_fault.cache_clear()
    yield
    vllm_import.import_fault.cache_clear()


@pytest.mark.parametrize("how", [["rlvr.engine=vllm"], ["rlvr.engine=auto", "rlvr.resources.engines=1"]])
def test_a_vllm_that_cannot_be_imported_is_told_before_the_first_stage(how: list[str], place: Place, broken_vllm: None) -> None:
    result = place.call("run", *how)
    complained(
        result, 2, "vLLM is installed and cannot be imported (ImportError: libcudart.so.12: cannot open", "engine=transformers"
    )
    assert "sft 1/3" not in result.output
    assert not (place.runs / "tiny" / "sft" / "checkpoints").exists()


def test_the_one_stage_of_a_command_says_it_before_rows_are_read(place: Place, broken_vllm: None) -> None:
    (place.folder / "problems.jsonl").write_text("no row\n")
    told = "vLLM is installed and cannot be imported (ImportError: libcudart.so.12: cannot open"
    complained(place.call("rlvr", "rlvr.engine=vllm", "sft=null"), 2, told, "sample without it: engine=transformers")
    complained(place.call("evaluate", "evaluate.engine=vllm"), 2, told)


@pytest.mark.parametrize(
    "command",
    [
        "evaluate MODEL --task mine --data ROWS --engine vllm",
        "evaluate MODEL --task mine --task more --data mine=ROWS --data more=ROWS --engine vllm",
        "evaluate MODEL --suite SUITE --engine vllm",
        "sample MODEL --data ROWS --verifier exact --engine vllm",
        "rewardbench MODEL --kind judge --data ROWS --engine vllm",
    ],
)
def test_a_command_of_a_model_says_it_before_rows_are_read(
    command: str, tmp_path: Path, tiny_model: Callable[..., Path], broken_vllm: None
) -> None:
    rows, suite = tmp_path / "rows.jsonl", tmp_path / "suite.yaml"
    rows.write_text("no row\n")
    suite.write_text(
        f"name: s\nabout: a test\ntasks:\n  a: {{title: A, data: {rows}, ask: '{{{{ q }}}}', gold: a, verifier: exact}}\n"
    )
    named = {"MODEL": str(tiny_model("olmo2")), "ROWS": str(rows), "SUITE": str(suite)}
    words = [name.replace("ROWS", str(rows)) if "=" in name else named.get(name, name) for name in command.split()]
    result = CliRunner().invoke(app, words)
    complained(result, 2, "vLLM is installed and cannot be imported (ImportError: libcudart.so.12", "--engine transformers")
    assert "resources" not in result.output


def test_an_import_that_succeeded_is_tried_again_when_something_changes(
    broken_vllm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "vllm" / "__init__.py"
    package.write_text("LLM = 1\n")
    assert vllm_import.vllm_problem() is None
    vllm_import.import_fault.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(vllm_import.subprocess, "run", lambda *_, **__: pytest.fail("it was tried again"))
        assert vllm_import.vllm_problem() is None
    vllm_import.import_fault.cache_clear()
    package.write_text(BROKEN)
    os.utime(package, ns=(1, 1))
    assert "libcudart" in str(vllm_import.vllm_problem())


def test_the_process_of_the_engine_says_the_same(place: Place, broken_vllm: None) -> None:
    from tulu.errors import EngineMissing
    from tulu.rollout.vllm_worker import need_vllm

    with pytest.raises(EngineMissing, match=r"cannot be imported \(ImportError: libcudart.so.12.*\n.*pip install") as error:
        need_vllm()
    assert error.value.exit_code == 2


def test_what_does_not_sample_with_vllm_is_not_asked_for_it(place: Place, broken_vllm: None) -> None:
    """`engine: auto` is transformers where there is no GPU."""
    result = place.call("run", "sft.steps=1", "rlvr=null", "evaluate.engine=auto")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("command", "override", "told"),
    [
        ("sft", "sft.max_length=513", "sft.max_length: 513 tokens, but {} has 512 positions"),
        ("run", "rlvr.max_prompt=600", "rlvr.max_prompt + rlvr.max_tokens: 604 tokens, but {} has 512 positions"),
        ("run", "evaluate.max_tokens=5000", "evaluate.max_tokens: 5000 tokens, but {} has 512 positions"),
        ("run", "evaluate.max_tokens=512", "evaluate.max_tokens: 512 tokens, but {} has 512 positions"),
        ("evaluate", "evaluate.max_tokens=512", "evaluate.max_tokens: 512 tokens, but {} has 512 positions"),
        ("rlvr", "rlvr.max_prompt=600", "rlvr.max_prompt + rlvr.max_tokens: 604 tokens, but {} has 512 positions"),
    ],
)
def test_documents_longer_than_the_model_reads_are_told_before_the_first_stage(
    command: str, override: str, told: str, place: Place, tiny_model: Callable[..., Path]
) -> None:
    result = place.call(command, override, "rlvr.max_length=700")
    cure = "Lower evaluate.max_tokens, or leave it out: then it is 256." if "evaluate" in override else "to 512 or less"
    complained(result, 2, told.format(tiny_model("olmo2")), cure)
    assert not place.runs.exists(), "nothing was begun"


def test_the_positions_of_a_model_that_the_recipe_makes_are_known_as_well(tmp_path: Path) -> None:
    base = load_recipe("quickstart").base
    assert base is not None
    most = base.config["max_position_embeddings"]
    assert isinstance(most, int)
    words = ["run", "quickstart", f"sft.max_length={most + 1}", f"evaluate.max_tokens={most}", "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, words)
    complained(result, 2, f"sft.max_length: {most + 1} tokens, but the model of base has {most} positions")
    complained(result, 2, f"evaluate.max_tokens: {most} tokens, but the model of base has {most} positions")
    look_ahead(load_recipe("quickstart"), list(STAGES))


def test_what_the_suite_of_a_recipe_lacks_is_told_before_the_first_stage(place: Place, tmp_path: Path) -> None:
    """It is done last, perhaps after days."""
    rows = tmp_path / "suite.jsonl"
    rows.write_text('{"question": "1", "answer": "1"}\n')
    judged = f"{{title: J, data: {rows}, ask: '{{{{ question }}}}', reference: answer, metric: win_rate}}"
    by_hand = "{title: H, obtain: ask around, ask: '{{ question }}', gold: answer, verifier: exact}"
    suite = tmp_path / "s.yaml"
    suite.write_text(f"name: s\nabout: a test\ntasks:\n  j: {judged}\n  h: {by_hand}\n")
    result = place.call("run", f"evaluate.suite={suite}")
    complained(result, 2, "j: needs a judge; set evaluate.judge", "(or add j to evaluate.skip)")
    complained(result, 2, "h: its rows must be fetched by hand (ask around); name them as its data in a suite of your own")
    result = place.call("run", f"evaluate.suite={suite}", "evaluate.skip=[j, h]")
    complained(result, 2, "evaluate.skip: leaves no task of the suite")
    assert not place.runs.exists(), "nothing was begun"


def test_configurations_of_any_age_say_their_positions() -> None:
    assert longest_document({"max_position_embeddings": 512}) == 512
    assert longest_document({"n_positions": 128}) == 128
    assert longest_document({"text_config": {"max_position_embeddings": 64}}) == 64
    scaling = {"type": "linear", "factor": 4.0}
    assert longest_document({"max_position_embeddings": 512, "rope_scaling": scaling}) == 2048
    assert longest_document({"max_position_embeddings": 512, "rope_scaling": None, "rope_parameters": None}) == 512
    assert longest_document(json.loads("{}")) is None


def test_a_user_without_a_home_is_told_too(monkeypatch: pytest.MonkeyPatch, broken_vllm: None) -> None:
    """As in a container that runs under a number that has no name; nothing is remembered there."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert "libcudart.so.12: cannot open" in str(vllm_import.vllm_problem())
