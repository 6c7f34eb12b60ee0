"""The page: what a run wrote is data in it, wherever it stands, and it is small and asks nobody for anything."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.report.made_run import EVIL, make_run, rollout_row, write_rows
from tulu.errors import RecipeError
from tulu.report import page as page_module
from tulu.report.page import MOST_BYTES, gather, report_page
from tulu.report.rollout_files import Indexes
from tulu.report.writing import leave_report, write_report


class Reader(HTMLParser):
    """What a browser would find: elements, their attributes, and the texts of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.plain = ""
        self._in: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element."""
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._in = dict(attrs).get("id") or tag
            self.texts[self._in] = ""

    def handle_endtag(self, tag: str) -> None:
        """A script has ended."""
        if tag in ("script", "style"):
            self._in = None

    def handle_data(self, data: str) -> None:
        """Note the text."""
        if self._in is None:
            self.plain += data
        else:
            self.texts[self._in] += data

    def json(self, name: str) -> Any:
        """What a script element holds."""
        return json.loads(self.texts[name])

    @property
    def rollouts(self) -> list[dict[str, Any]]:
        """The rollouts that the page holds."""
        found: list[dict[str, Any]] = json.loads(gzip.decompress(base64.b64decode(self.texts["packed"])))
        return found


def page_of(*folders: Path) -> str:
    indexes = Indexes()
    return report_page(gather(folders, indexes), indexes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("page") / f"demo {EVIL[:9].replace('/', '')}")


@pytest.fixture(scope="module")
def found(made: Path) -> Reader:
    return Reader(page_of(made))


def test_what_a_run_wrote_makes_no_element_and_no_attribute(found: Reader) -> None:
    assert [tag for tag, _ in found.tags].count("script") == 4
    assert not [tag for tag, _ in found.tags if tag in ("img", "iframe", "object", "embed", "base", "form") and tag != "form"]
    handlers = [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert handlers == []
    # It is there, word for word, as a text: in samples, answers, provenance and notes.
    assert found.plain.count("window.attacked=1") > 8
    assert all(EVIL in row["text"] or EVIL in "".join(row["pieces"]) for group in found.rollouts for row in group["rows"])


def test_nothing_is_asked_of_anybody(found: Reader, made: Path) -> None:
    for tag, attributes in found.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href", "style"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:")), f"{tag} {name}={target}"
    style, script = found.texts["style"], found.texts["script"]
    assert not re.search(r"url\(|@import|https?:", style)
    policy = next(
        attributes["content"] for _, attributes in found.tags if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    for text in (style, script):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy


def test_every_section_of_a_run_is_there(found: Reader) -> None:
    ids = [attributes.get("id") for tag, attributes in found.tags if tag == "section"]
    assert ids == ["damage", "chain", "curves", "rollouts", "answers", "rows", "rewardbench", "verifiers", "energy", "provenance"]
    assert all(f"#{name}" in [attributes.get("href") for tag, attributes in found.tags if tag == "a"] for name in ids[1:])
    # The curves are drawn in the file: two of their own and one of a family for each stage, and tokens and seconds.
    assert sum("data-chart" in attributes for tag, attributes in found.tags if tag == "svg") == 4 * 5
    for text in (
        "30.0 %",
        "25.0 – 35.0",
        "+55.0",
        "All 192 rollouts.",
        "2.00 kWh",
        "375 Wh",
        "2.78 kWh, 0.962 kg CO2e, 3.59 l of water",
        "look 7",
        "75.0 %",
        "68.0 – 81.0",
        "1 timeout",
    ):
        assert text in found.plain
    assert [one["total"] for one in found.json("facts")["stages"]] == [192]
    assert found.json("numbers")["k0"][0]["y"][:3] == [1.0, 0.5, 0.33333]


def test_a_large_run_is_sampled_thinned_and_cut_until_it_fits(tmp_path: Path) -> None:
    import random

    rng = random.Random(3)
    folder = make_run(tmp_path / "large", steps=4, text="<&>")
    lines = [{"step": step, **{f"metric{n}": rng.random() for n in range(60)}} for step in range(1, 1001)]
    (folder / "sft" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    noise = [chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(60_000)]
    for step in range(1, 5):
        rows = [
            {**rollout_row(step, group, member), "completion": "".join(rng.choices(noise, k=1500)), "token_ids": None}
            for group in range(70)
            for member in range(4)
        ]
        write_rows(folder / f"rlvr/rollouts/step-{step:06d}.parquet", rows)
    text = page_of(folder)
    assert len(text.encode()) < MOST_BYTES
    read = Reader(text)
    count = sum(len(group["rows"]) for group in read.rollouts)
    assert 50 < count <= 1000
    assert f"A sample of {count:,} of 1,120 rollouts" in read.plain
    assert "are longer than shown and are cut" in read.plain
    assert "a point is the mean of" in read.plain


def test_more_runs_than_fit_are_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "MOST_BYTES", 40_000)
    with pytest.raises(RecipeError, match="2 runs do not fit a report of 0 MB; name fewer"):
        page_of(made, made)


def test_runs_are_compared_and_told_apart(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a" / "demo", steps=3), make_run(tmp_path / "b" / "demo", steps=3)
    read = Reader(page_of(first, second))
    facts = read.json("facts")
    assert facts["runs"] == [f"demo ({tmp_path}/a)", f"demo ({tmp_path}/b)"]
    assert [line["run"] for line in read.json("numbers")["k0"]] == [0, 1]
    assert [attributes["data-run-toggle"] for tag, attributes in read.tags if "data-run-toggle" in attributes] == ["0", "1"]


@pytest.mark.parametrize("damage", ["metrics.jsonl", "manifest.json", "recipe.yaml", "rows.jsonl", "status.json"])
@pytest.mark.parametrize("content", [b"\xff\x00", b"[]", b'{"finished": [], "energy": 3, "tokens": {}}\n'])
def test_whatever_a_file_holds_there_is_a_report(damage: str, content: bytes, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "demo", steps=2)
    for stage in ("sft", "rlvr"):
        (folder / stage / damage).write_bytes(content)
    assert "tulu report" in page_of(folder)


def test_odd_values_in_good_files_are_left_out(tmp_path: Path) -> None:
    """Every entry that a report reads, replaced by another kind of value."""
    folder = make_run(tmp_path / "demo", steps=2)
    odd: list[Any] = [None, 3, "x", [], {}, [["a"]], True, -1e999]
    files = [
        "sft/manifest.json",
        "evaluate/sft/results.json",
        "rm/rewardbench/v2/results.json",
        "sft/rows.jsonl",
        "evaluate/sft/answers.jsonl",
    ]
    for name in files:
        content = json.loads((folder / name).read_text().splitlines()[0])
        for value in odd:
            (folder / name).write_text(json.dumps(dict.fromkeys(content, value)) + "\n")
            nested = {key: dict.fromkeys(entry, value) if isinstance(entry, dict) else entry for key, entry in content.items()}
            page_module.render(gather([folder], Indexes()))
            (folder / name).write_text(json.dumps(nested) + "\n")
            page_module.render(gather([folder], Indexes()))
        (folder / name).write_text(json.dumps(content) + "\n")


def test_half_a_surrogate_pair_is_shown_as_its_escape(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "demo", steps=2)
    for name in ("evaluate/sft/answers.jsonl", "sft/rows.jsonl", "sft/manifest.json", "sft/metrics.jsonl"):
        text = (folder / name).read_text().replace("window.attacked", "\\ud83d").replace('"loss"', '"\\ud83d"')
        (folder / name).write_text(text)
    text = write_report([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("\\ud83d") > 4


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "demo" / "sft").mkdir(parents=True)
    (tmp_path / "demo" / "sft" / "recipe.yaml").write_text("sft: {}\n")
    assert "begun, no step yet" in page_of(tmp_path / "demo")


def test_a_report_that_cannot_be_written_harms_no_run(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tulu.report.writing.write_atomic", full)
    monkeypatch.setattr("tulu.report.writing.log.propagate", True, raising=False)
    with caplog.at_level("WARNING"):
        leave_report(made)
    monkeypatch.undo()
    assert not (made / "report.html").exists()
    assert write_report([made], tmp_path / "r.html").stat().st_size < MOST_BYTES
