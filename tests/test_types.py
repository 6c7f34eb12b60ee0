"""The nouns that every stage shares."""

import pytest

from tulu.types import Verdict


def test_a_score_goes_with_ok_and_only_with_ok() -> None:
    with pytest.raises(ValueError, match="a score goes with ok"):
        Verdict(None)
    with pytest.raises(ValueError, match="a score goes with ok"):
        Verdict(1.0, "error")


@pytest.mark.parametrize(
    ("detail", "shown"),
    [("answer 5", "answer 5"), ("réponse 5", "réponse 5"), ("answer \ud800", "answer \\ud800"), ("🙂 \udfff", "🙂 \\udfff")],
)
def test_every_detail_can_be_written_to_a_file(detail: str, shown: str) -> None:
    verdict = Verdict(0.0, detail=detail)
    assert verdict.detail == shown
    verdict.detail.encode()
