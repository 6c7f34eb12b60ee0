"""What `--data` names, as Items: RewardBench 1 and 2, the prior sets, LLMBar, or anyone's pairs, from the hub or from files."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tulu.config.schema import Source
from tulu.data.sources import READERS, Row, load_rows
from tulu.errors import DataError
from tulu.reward_models.items import Item
from tulu.reward_models.preferences import to_item
from tulu.reward_models.sections import KNOWN, PRIOR_SCORED, PRIOR_UNSCORED, Data, check

HUB = {
    "v1": (Source(name="allenai/reward-bench", split="filtered", fraction=1.0),),
    "v2": (Source(name="allenai/reward-bench-2", split="test", fraction=1.0),),
    "prior": tuple(
        Source(name="allenai/pref-test-sets", split=split, fraction=1.0) for split in (*PRIOR_SCORED, *PRIOR_UNSCORED)
    ),
}
"""Names that stand for data on the hub. The prior sets' pku_better and pku_safer are left out, as upstream."""

LLMBAR = {
    "Natural": "llmbar-natural",
    "Neighbor": "llmbar-adver-neighbor",
    "GPTInst": "llmbar-adver-GPTInst",
    "GPTOut": "llmbar-adver-GPTOut",
    "Manual": "llmbar-adver-manual",
}
"""Folders of princeton-nlp/LLMBar, and the subsets of RewardBench 1 that they are."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Items, the rules that aggregate them, and a hash of their content."""

    name: str
    data: Data
    items: Sequence[Item]
    digest: str


def load(data: str, limit: int | None = None) -> Loaded:
    """Items of v1, v2, prior, v1+prior, v1=PATH, v2=PATH, a file, a folder of files, or a hub name.

    A path alone follows the rules of v1 or v2 where all its subsets are theirs. DataError names what cannot be read or used.
    """
    rules, _, path = data.partition("=")
    if rules in ("v1", "v2") and path:
        items = _from_path(path)
        kind: Data = "v1" if rules == "v1" else "v2"
        name = f"{rules}-{_label(Path(path))}"
    elif all(part in HUB for part in data.split("+")):
        if "v2" in data.split("+") and data != "v2":
            raise DataError(f"--data {data}: v2 has rules of its own; evaluate it alone")
        kind = "v2" if data == "v2" else "v1"
        items = [item for part in data.split("+") for source in HUB[part] for item in _from_source(source, _prior_subset(source))]
        name = data
    else:
        items = _from_path(data)
        kind, name = _rules(items), _label(Path(data))
    _check_subsets(items, kind)
    if limit is not None:
        items = _first(items, limit)
    return Loaded(name, kind, items, _digest(items))


def _from_path(name: str) -> list[Item]:
    path = Path(name).expanduser()
    if not path.is_dir() or any((path / marker).exists() for marker in ("dataset_info.json", "dataset_dict.json")):
        return _from_source(Source(name=name, fraction=1.0), _subset_of(path))
    files = sorted(file for file in path.rglob("*") if file.is_file() and Path(file.name.removesuffix(".gz")).suffix in READERS)
    if not files:
        raise DataError(f"{name}: no {', '.join(READERS)} file in this folder")
    return [item for file in files for item in _from_source(Source(name=str(file), fraction=1.0), _subset_of(file))]


def _from_source(source: Source, subset: str) -> list[Item]:
    """Rows as items; up to ten broken rows are named at once."""
    rows = load_rows(source)
    items, problems = [], []
    for index in range(len(rows)):
        try:
            row: Row = rows[index]
            items.append(_item(row, subset))
        except DataError as error:
            problems.append(str(error))
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise DataError("\n".join([*problems[:10], *more]))
    return items


def _item(row: Row, subset: str) -> Item:
    columns = dict(row.columns)
    if subset in (*PRIOR_SCORED, *PRIOR_UNSCORED) and "subset" in columns:
        # A prior set's own subsets are no subsets of the benchmark.
        columns["subsubset"] = columns.pop("subset")
    return to_item(columns, subset, row.id)


def _prior_subset(source: Source) -> str:
    return source.split if source in HUB["prior"] else "all"


def _subset_of(path: Path) -> str:
    """The subset of rows that name none: LLMBar's folder, else the file's name (hub files end in -00000-of-00001)."""
    if path.name.startswith("dataset.json") and path.parent.name in LLMBAR:
        return LLMBAR[path.parent.name]
    return _stem(path).split("-0000")[0]


def _stem(path: Path) -> str:
    """A path's name without its suffixes."""
    name = path.name.removesuffix(".gz")
    return Path(name).stem if Path(name).suffix in READERS else name or "data"


def _label(path: Path) -> str:
    """FOLDER-NAME of a path: test.jsonl.gz lies in many folders."""
    return "-".join(part for part in (path.parent.name, _stem(path)) if part not in ("", ".."))


def _rules(items: Iterable[Item]) -> Data:
    """v1 or v2 where every subset is one of theirs, else free."""
    items = list(items)
    names = {item.subset for item in items}
    pairs = all(len(item.answers) == 2 for item in items)
    if pairs and names <= set(KNOWN["v1"] or ()):
        return "v1"
    # A subset called Math or Safety may be anyone's; lists of answers under nothing but v2's names are v2.
    if not pairs and names <= set(KNOWN["v2"] or ()):
        return "v2"
    return "free"


def _check_subsets(items: Sequence[Item], data: Data) -> None:
    known = KNOWN[data]
    if known is None:
        return
    unknown: dict[str, str] = {}
    for item in items:
        if item.subset not in known:
            unknown.setdefault(item.subset, item.where)
    if unknown:
        named = "\n".join(f"{where}: unknown subset {name!r} for {data}" for name, where in unknown.items())
        raise DataError(f"{named}\nknown subsets: {', '.join(known)}; give the path alone for data of your own")
    # Whatever could not be aggregated afterwards, such as a Ties id, is found before anything is scored.
    check([item.scored([0.0] * len(item.answers)) for item in items], data)


def _first(items: Sequence[Item], limit: int) -> list[Item]:
    """The first `limit` items of every subset."""
    seen: Counter[str] = Counter()
    kept = []
    for item in items:
        seen[item.subset] += 1
        if seen[item.subset] <= limit:
            kept.append(item)
    return kept


def _digest(items: Iterable[Item]) -> str:
    """Hash of what is scored; where the rows lie does not matter."""
    total = hashlib.blake2b(digest_size=16)
    for item in items:
        content = {**asdict(item), "where": ""}
        if item.id == item.where:
            content["id"] = ""
        total.update(json.dumps(content, sort_keys=True).encode())
    return total.hexdigest()
