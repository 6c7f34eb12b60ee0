"""The manifest of a run: what it says of the data, and that one of another shape is damaged and no empty one."""

import re
from pathlib import Path

import pytest

from tests.train.test_run import opened
from tulu.errors import ResumeError
from tulu.train.model_files import model_faults


def test_changed_data_is_named_by_its_file(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.pin(data="d1", sources={"a.jsonl": "1", "b.jsonl": "2"}, template="t")
    with pytest.raises(ResumeError) as error:
        opened(tmp_path).pin(data="d2", sources={"a.jsonl": "1", "b.jsonl": "3"}, template="t")
    assert str(error.value).splitlines()[1:-1] == ['  data of b.jsonl: "2" -> "3"']
    with pytest.raises(ResumeError, match=r'data of c\.jsonl: "absent" -> "4"'):
        opened(tmp_path).pin(data="d2", sources={"a.jsonl": "1", "b.jsonl": "2", "c.jsonl": "4"}, template="t")
    with pytest.raises(ResumeError, match='  template: "t" -> "u"'):
        opened(tmp_path).pin(data="d1", sources={"a.jsonl": "1", "b.jsonl": "2"}, template="u")
    opened(tmp_path).pin(data="d1", sources={"a.jsonl": "1", "b.jsonl": "2"}, template="t")


def test_data_pinned_by_an_earlier_version_is_compared_as_a_whole(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.pin(data="d1")
    with pytest.raises(ResumeError, match='data: "d1" -> "d2"'):
        opened(tmp_path).pin(data="d2", sources={"a.jsonl": "1"})
    opened(tmp_path).pin(data="d1", sources={"a.jsonl": "1"})


MANIFESTS = {
    "": "Expecting value",
    "null": "the whole",
    "[]": "the whole: Input should be an object",
    '[["pinned", {}]]': "the whole",
    "3": "the whole",
    '{"pinned": 3}': "pinned: Input should be an object",
    '{"pinned": null}': "pinned",
    '{"settled": {"row_tokens": "many"}}': "settled.row_tokens: Input should be a valid integer",
    '{"model": {"model.safetensors": 3}}': "model.model.safetensors: Input should be a valid array",
    '{"kept": {"step-000002": []}}': "kept.step-000002",
    '{"finished": "yes"}': "finished: Input should be a valid boolean",
}


@pytest.mark.parametrize("content", MANIFESTS)
def test_a_manifest_of_another_shape_is_damaged_and_left_as_it_is(content: str, tmp_path: Path) -> None:
    """A list was once taken for an empty manifest, so that the run began anew over what was there."""
    run = opened(tmp_path)
    file = run.path / "manifest.json"
    file.write_text(content)
    with pytest.raises(ResumeError, match=rf"manifest\.json: is damaged, .*{re.escape(MANIFESTS[content])}"):
        opened(tmp_path).pin(data="d1")
    with pytest.raises(ResumeError, match="is damaged"):
        model_faults(run.model_folder)
    assert file.read_text() == content
    assert opened(tmp_path, fresh=True).manifest() == {}


def test_a_manifest_that_is_a_folder_or_holds_more_than_is_read(tmp_path: Path) -> None:
    run = opened(tmp_path)
    (run.path / "manifest.json").write_text('{"pinned": {}, "held_out_accuracy": NaN, "of a later version": [1]}')
    assert opened(tmp_path).manifest()["of a later version"] == [1]
    (run.path / "manifest.json").unlink()
    (run.path / "manifest.json").mkdir()
    with pytest.raises(ResumeError, match="Is a directory"):
        opened(tmp_path)
