"""A model goes to the hub with a card that says what its run says; nothing goes where something is missing or damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub.errors import HTTPError
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from tulu.cli import app
from tulu.commands.export import export
from tulu.commands.model_card import chain_of, find_stage, model_card, plain
from tulu.commands.push import push
from tulu.config.job import ADAPTERS
from tulu.errors import RecipeError, TuluError
from tulu.train.model_files import write_model


class Hub:
    """Keeps what it is sent."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.got: dict[str, Any] = {}

    def create_repo(self, repo: str, private: bool, exist_ok: bool) -> None:
        if self.fails is not None:
            raise self.fails
        self.got |= {"repo": repo, "private": private, "again": exist_ok}

    def upload_folder(self, repo_id: str, folder_path: str, commit_message: str) -> None:
        self.got |= {"folder": sorted(file.name for file in Path(folder_path).iterdir()), "model_of": repo_id}

    def upload_file(self, repo_id: str, path_or_fileobj: bytes, path_in_repo: str, commit_message: str) -> None:
        self.got |= {path_in_repo: path_or_fileobj.decode()}


@pytest.fixture
def runs(tmp_path: Path, tiny_model: Callable[..., Path]) -> Path:
    """A run of two stages, of which the second began at the first one's model, and an evaluation."""
    source = tiny_model("qwen3")
    parts = {"kwh": 2.0, "gpu_kwh": 2.0, "cpu_kwh": 0.0, "ram_kwh": 0.0, "estimated": []}
    for name, start, data in (
        ("sft", "allenai/OLMo-2-0425-1B", "allenai/tulu-3-sft-mixture"),
        ("dpo", "{}/model", "data/mine.jsonl"),
    ):
        folder = tmp_path / "runs" / "mine" / name
        folder.mkdir(parents=True)

        def save(target: Path, _writes: bool) -> None:
            target.mkdir(parents=True, exist_ok=True)
            for file in source.iterdir():
                (target / file.name).write_bytes(file.read_bytes())

        from tests.samples import make_stage
        from tulu.model.parallel import Parallel

        files = write_model(folder / "model", save, Parallel(make_stage()))
        facts = {"finished": True, "steps": 3, "seconds": 3600, "energy": parts, "pinned": {"data": "d" * 32}, "model": files}
        (folder / "manifest.json").write_text(json.dumps(facts))
        recipe = {
            "name": "mine",
            "model": None,
            "start": start.format(folder.parent / "sft"),
            name: {"data": [{"name": data}], "steps": 3},
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    results = tmp_path / "runs" / "mine" / "evaluate" / "dpo"
    results.mkdir(parents=True)
    figures = {"accuracy": 0.5, "ci95": [0.4, 0.6], "judged": 96, "settings": {"task": "gsm8k"}}
    (results / "results.json").write_text(json.dumps(figures))
    return tmp_path / "runs"


def test_the_card_says_what_the_run_says(runs: Path) -> None:
    stage = find_stage("mine", runs)
    assert [one.name for one in chain_of(stage)] == ["sft", "dpo"]
    card = model_card(stage)
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["base_model"] == "allenai/OLMo-2-0425-1B"
    assert yaml.safe_load(head)["datasets"] == ["allenai/tulu-3-sft-mixture"]
    for words in ("| dpo | gsm8k | 50.0% | 40.0% to 60.0% | 96 |", "4 kWh", "6.96 kWh", "## Recipe of sft", "d" * 32, "1.00"):
        assert words in body


def test_it_is_sent_with_its_card(runs: Path) -> None:
    hub = Hub()
    push("mine/sft", "me/it", runs, private=True, dry_run=False, hub=hub)
    assert (hub.got["repo"], hub.got["private"], hub.got["again"], hub.got["model_of"]) == ("me/it", True, True, "me/it")
    assert "model.safetensors" in hub.got["folder"]
    assert hub.got["README.md"] == model_card(find_stage("mine/sft", runs))


def test_what_is_missing_or_damaged_is_not_sent(runs: Path) -> None:
    hub = Hub()
    weights = runs / "mine" / "sft" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    for name, repo, message in (
        ("mine/sft", "me/it", "damaged"),
        ("mine/dpo", "me", "OWNER/NAME"),
        ("mine/dpo", "../../etc/x", "no name of a repository"),
        ("mine/dpo", "../..", "no name of a repository"),
        ("other", "me/it", "no run with a model"),
    ):
        with pytest.raises(RecipeError, match=message):
            push(name, repo, runs, private=False, dry_run=False, hub=hub)
    manifest = runs / "mine" / "dpo" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "finished": False}))
    with pytest.raises(RecipeError, match="not finished"):
        push("mine/dpo", "me/it", runs, private=False, dry_run=False, hub=hub)
    manifest.write_text("{")
    for send in (
        lambda: push("mine/dpo", "me/it", runs, private=False, dry_run=False, hub=hub),
        lambda: export("mine/dpo", runs / "copy", runs, adapters=False),
    ):
        with pytest.raises(RecipeError, match=r"is damaged.*\nRestore it from a copy, or run its stage with --fresh"):
            send()
    assert hub.got == {}


def test_a_hub_that_is_away_is_one_message(runs: Path) -> None:
    for error in (HTTPError("no route"), ConnectionError("refused")):
        with pytest.raises(TuluError, match="cannot be reached"):
            push("mine", "me/it", runs, private=False, dry_run=False, hub=Hub(error))


def test_dry_run_sends_nothing_and_needs_no_hub(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = CliRunner().invoke(app, ["push", "mine", "me/it", "--runs", str(runs), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "# mine, after dpo" in done.output
    assert "nothing was sent" in done.output


def test_a_model_is_exported_merged_or_its_adapters_apart(runs: Path, tmp_path: Path) -> None:
    model, out = runs / "mine" / "sft" / "model", tmp_path / "out"
    with pytest.raises(RecipeError, match="without lora"):
        export("mine/sft", out, runs, adapters=True)
    (model / ADAPTERS).mkdir()
    (model / ADAPTERS / "adapter_model.safetensors").write_bytes(b"weights")
    config = {"base_model_name_or_path": "allenai/OLMo-2-0425-1B", "r": 24, "task_type": "CAUSAL_LM"}
    (model / ADAPTERS / "adapter_config.json").write_text(json.dumps(config))
    export("mine/sft", out / "merged", runs, adapters=False)
    export("mine/sft", out / "apart", runs, adapters=True)
    names = {kind: {file.name for file in (out / kind).iterdir()} for kind in ("merged", "apart")}
    assert "model.safetensors" in names["merged"]
    assert not names["merged"] & {ADAPTERS, "adapter_model.safetensors"}
    assert {"adapter_model.safetensors", "README.md", "tokenizer_config.json"} <= names["apart"]
    assert "model.safetensors" not in names["apart"]
    with pytest.raises(RecipeError, match="not empty"):
        export("mine/sft", out / "merged", runs, adapters=False)


def test_a_model_is_exported_into_the_folder_that_one_is_in(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(str(runs / "mine" / "sft"), Path("."), runs, adapters=False)
    assert (tmp_path / "here" / "model.safetensors").is_file()


def test_the_card_beside_adapters_has_the_lines_that_load_them(
    tmp_path: Path, tiny_model: Callable[..., Path], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines are run as they stand, and vLLM's own table says that it takes the rank."""
    base = tiny_model("olmo2")
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=24, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(str(runs / "mine" / "sft" / "model" / ADAPTERS))
    shutil.copytree(base, runs / "mine" / "sft" / "model", dirs_exist_ok=True)
    monkeypatch.setattr("tulu.train.model_files.model_faults", lambda _: [])
    # The card names the model that the stage began with by its folder's name, not by where that lies.
    monkeypatch.chdir(base.parent)
    (tmp_path / "apart").mkdir()
    export("mine/sft", tmp_path / "apart", runs, adapters=True)
    card = (tmp_path / "apart" / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "peft"
    found: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0].replace('"apart"', f'"{tmp_path / "apart"}"'), found)
    ids = torch.arange(12)[None]
    assert torch.equal(found["model"](ids).logits, adapted(ids).logits)
    assert found["tokenizer"].vocab_size > 0
    assert f"vllm serve {base.name} --enable-lora --max-lora-rank 32 --lora-modules apart=apart --tokenizer apart" in card
    assert "## Use" not in model_card(find_stage("mine/sft", runs))


def test_figures_of_the_last_look_stand_in_where_nothing_was_evaluated(runs: Path) -> None:
    looks = [{"step": 2, "eval/loss": 1.5}, {"step": 4, "eval/loss": 1.25, "eval/accuracy": 0.75, "eval/seconds": 3.0}]
    rows = [*looks[:1], {"step": 3, "loss": 1.0}, *looks[1:], {"step": 5, "loss": 0.9}]
    for name in ("sft", "dpo"):
        (runs / "mine" / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"eval/loss')
    card = model_card(find_stage("mine", runs))
    assert "## Held out while it trained" in card
    assert "| sft | 4 | loss | 1.25 |\n| sft | 4 | accuracy | 0.75 |\n" in card
    assert "| dpo | 4 |" not in card, "dpo was evaluated"
    assert "seconds" not in card.split("## Held out while it trained")[1].split("##")[0]


def test_a_reward_model_classifies_text(runs: Path) -> None:
    def task(name: str) -> str:
        return str(yaml.safe_load(model_card(find_stage(name, runs)).split("---\n")[1])["pipeline_tag"])

    assert task("mine/sft") == "text-generation"
    config = runs / "mine" / "sft" / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": ["Qwen3ForSequenceClassification"]}))
    assert task("mine/sft") == "text-classification"
    assert task("mine/dpo") == "text-generation"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/tmp/x/runs/tiny/inputs/rlvr-0.jsonl", "rlvr-0.jsonl"),
        ("/home/al ice/my rows.jsonl", "my rows.jsonl"),
        ("~/rows.jsonl", "rows.jsonl"),
        ("../../alice/rows.jsonl", "rows.jsonl"),
        ("file:///home/alice/rows.jsonl", "rows.jsonl"),
        ("/home/alice/runs/mine/sft/model", "sft/model"),
        ("/home/alice/verifier.py:Exact", "verifier.py:Exact"),
        ("python /home/alice/server.py --data=/srv/rows.jsonl", "python server.py --data=rows.jsonl"),
        ({"/srv/a/x": ["/srv/b/y", 1, None]}, {"x": ["y", 1, None]}),
        ("allenai/tulu-3-sft-mixture", "allenai/tulu-3-sft-mixture"),
        ("data/mine.jsonl", "data/mine.jsonl"),
        ("http://judge:8000/v1", "http://judge:8000/v1"),
        ("Answer /no_think, either/or, 1/2; </s>", "Answer /no_think, either/or, 1/2; </s>"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_paths_of_the_machine(value: Any, shown: Any) -> None:
    assert plain(value) == shown


def test_no_path_of_the_machine_stands_in_a_card(runs: Path, tmp_path: Path) -> None:
    recipe = runs / "mine" / "sft" / "recipe.yaml"
    content = yaml.safe_load(recipe.read_text())
    content |= {"start": "/srv/models/mine", "template": "/srv/alice/t.jinja"}
    content["sft"] |= {"data": [{"name": str(tmp_path / "rows.jsonl")}], "verifier": f"{tmp_path}/v.py:Own"}
    recipe.write_text(yaml.safe_dump(content))
    for card in (model_card(find_stage("mine", runs)), model_card(find_stage("mine/sft", runs))):
        assert not [words for words in (str(tmp_path), "/srv", "alice", str(runs)) if words in card]
        assert "Trained from mine with" in card
        assert "| rows.jsonl |" in card
