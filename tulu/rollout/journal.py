"""What the stream of rollouts keeps on disk, so that a run that is killed at any moment samples and grades nothing twice.

Beside the checkpoint of step N lies stream/from-NNNNNN.jsonl. It begins with what was finished and not yet trained at that
step, and grows by one line for everything that happens after it:

    drawn      prompts were drawn                                 {first, count, version}
    finished   a completion ended, or was given up                {position, sample, tokens, logps, versions, finish, ...}
    graded     a group has its grades                             {position, grades}
    step       a step begins to train on these prompts            {step, trained, aside}
    put back   steps that were begun cannot be done again, as their rollouts are lost: their prompts wait again

Each line ends with a digest of itself and is on the disk before it counts. Lines that were written together count together:
each says how many `follow`, and what a crash left of them is left out, since completions that were decoded together are sampled
again together or not at all. A session that resumes from the checkpoint reads the file up to the first line that is not whole,
and does the steps that it names again with the same rollouts. A file is removed together with the checkpoint that it begins at.
"""

import base64
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from tulu.errors import CheckpointError, ResumeError
from tulu.files import JsonLines
from tulu.grading.reward import Grades
from tulu.types import Completion, Verdict

log = logging.getLogger("tulu")

NAME = "from-{:06d}.jsonl"
_NAMED = re.compile(r"from-(\d{6,})\.jsonl")


class StreamLog:
    """The files of one run's stream, of which the newest grows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: list[JsonLines] = []
        """The newest file, and while a checkpoint is written the one before it too: whichever of both counts is whole."""

    @property
    def is_moving(self) -> bool:
        """Whether a checkpoint has been begun and `settle` is not called yet."""
        return len(self._open) > 1

    def resume(self, step: int) -> Iterator[dict[str, Any]]:
        """Go on with the file of the checkpoint that was resumed, yielding its lines; files of later steps are removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / NAME.format(step)
        for begins, other in self._files().items():
            if begins > step:
                other.unlink()
        if step and not path.exists():
            log.warning("%s is gone: what was sampled before and not trained by step %d is sampled again", path, step)
        rows = JsonLines(path)
        self._open = [rows]
        if rows.has_rows():
            yield from _whole_lines(path)

    def replay(self, step: int, do: Callable[[dict[str, Any]], object]) -> None:
        """Go on with the file of the checkpoint that was resumed, and `do` what its lines say was done.

        Raises ResumeError where a line is whole and still does not follow from those before it.
        """
        for number, row in enumerate(self.resume(step), 1):
            try:
                do(row)
            except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
                file, told = self.folder / NAME.format(step), f"{type(error).__name__}: {error}"
                raise ResumeError(
                    f"{file}:{number}: does not follow from the lines before it ({told}): another version wrote it, or it was "
                    "changed\nRemove the file to sample again what stands there, or run with --fresh to start over."
                ) from error

    def _files(self) -> dict[int, Path]:
        """The files by the step that each begins at; what only begins alike is somebody's copy."""
        found = ((_NAMED.fullmatch(path.name), path) for path in self.folder.glob("from-*.jsonl"))
        return {int(match[1]): path for match, path in found if match}

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add lines that count together, and are on the disk when this returns. Raises CheckpointError if the disk refuses."""
        last = len(rows) - 1
        sealed = [_sealed({**row, "follow": last - place} if place < last else row) for place, row in enumerate(rows)]
        for file in self._open if sealed else ():
            _write(file, sealed)

    def begin(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Begin the file of a step whose checkpoint is about to be written, with these lines."""
        path = self.folder / NAME.format(step)
        # A session that was killed while it wrote the same checkpoint may have left one.
        path.unlink(missing_ok=True)
        file = JsonLines(path)
        _write(file, [_sealed(row) for row in rows])
        self._open.append(file)

    def settle(self, oldest: int) -> None:
        """The newest file's checkpoint is whole, and `oldest` is the step of the oldest one that is kept."""
        self._open = self._open[-1:]
        for begins, path in self._files().items():
            if begins < oldest:
                path.unlink()

    def forget(self) -> None:
        """Nothing that was sampled since the checkpoint, or waited there, can be trusted; nothing is written from here on."""
        for file in self._open:
            file.path.unlink(missing_ok=True)
        self._open = []


def _write(file: JsonLines, rows: Sequence[Mapping[str, Any]]) -> None:
    try:
        file.append(rows)
    except OSError as error:
        cure = "Free some space and run the same command again: what is written there is not sampled again."
        raise CheckpointError(f"{file.path}: rollouts could not be written ({error.strerror or error})\n{cure}") from error


def _sealed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "digest": _digest(row)}


def _digest(row: Mapping[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(row).encode())


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines up to the first one that is damaged; what follows that is cut off and told, since it rests on what is lost.

    So are lines that others should follow which are not there.
    """
    end = size = follow = 0
    together: list[dict[str, Any]] = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
                if row.pop("digest") != _digest(row):
                    raise ValueError("its digest is another")
                before, follow = follow, row.pop("follow", 0)
                if together and follow != before - 1:
                    raise ValueError("lines that belong before it are lost")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning(
                    "%s:%d is damaged (%s): it and what follows, %d bytes, is left out, and those rollouts are sampled again",
                    *(path, number, error, path.stat().st_size - end),
                )
                break
            size += len(line)
            together.append(row)
            if not follow:
                end = size
                yield from together
                together = []
    if end < path.stat().st_size:
        os.truncate(path, end)


# -- completions and grades as plain values --------------------------------------------------------------------


def completion_row(completion: Completion) -> dict[str, Any]:
    """A completion as plain values, from which it is made again to the last bit."""
    row: dict[str, Any] = {
        "tokens": _text(np.asarray(completion.tokens, dtype="<i4")),
        "finish": completion.finish,
        "versions": [list(span) for span in completion.versions],
    }
    if completion.sampler_logps is not None:
        exact = np.asarray(completion.sampler_logps, dtype="<f8")
        short = exact.astype("<f4")
        # Engines compute log-probs in float32, of which half the bytes say all.
        row |= {"logps": _text(short)} if np.array_equal(short, exact) else {"logps_f8": _text(exact)}
    if completion.engines:
        row["engines"] = [list(span) for span in completion.engines]
    if not all(completion.trained):
        row["trained"] = "".join("1" if flag else "0" for flag in completion.trained)
    if completion.verdict is not None:
        row["verdict"] = _verdict_row(completion.verdict)
    return row


def read_completion(row: Mapping[str, Any]) -> Completion:
    """What `completion_row` wrote."""
    tokens = _numbers(row["tokens"], "<i4")
    short, exact = row.get("logps"), row.get("logps_f8")
    logps = _numbers(short, "<f4") if short is not None else None if exact is None else _numbers(exact, "<f8")
    trained = [flag == "1" for flag in row["trained"]] if "trained" in row else [True] * len(tokens)
    verdict = _read_verdict(row.get("verdict"))
    versions, engines = ([(first, of) for first, of in row.get(name, [])] for name in ("versions", "engines"))
    return Completion(tokens, trained, logps, row["finish"], versions, verdict, tuple(engines))


def grades_row(grades: Grades) -> list[Any]:
    """The grades of a completion as plain values."""
    return [_verdict_row(grades.verdict), _verdict_row(grades.preference), grades.weight]


def read_grades(row: Sequence[Any]) -> Grades:
    """What `grades_row` wrote."""
    verdict, preference, weight = row
    return Grades(_read_verdict(verdict), _read_verdict(preference), weight)


def _verdict_row(verdict: Verdict | None) -> list[Any] | None:
    if verdict is None:
        return None
    row: list[Any] = [verdict.score, verdict.status, verdict.detail]
    return [*row, [[name, _verdict_row(part)] for name, part in verdict.parts]] if verdict.parts else row


def _read_verdict(row: Sequence[Any] | None) -> Verdict | None:
    if row is None:
        return None
    score, status, detail, *parts = row
    read = [(name, _read_verdict(part)) for name, part in (parts[0] if parts else ())]
    return Verdict(score, status, detail, tuple((name, part) for name, part in read if part is not None))


def _text(numbers: Any) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def _numbers(text: str, kind: str) -> list[Any]:
    numbers: list[Any] = np.frombuffer(base64.b64decode(text), dtype=kind).tolist()
    return numbers
