"""The items that `--data` names: RewardBench 1 and 2, the prior sets, LLMBar, or anyone's pairs, from the hub or from files."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count, takewhile
from pathlib import Path

from tulu.config.locate import DATA_SUFFIXES, data_suffix
from tulu.config.parts import Source
from tulu.data.faults import Misfit, Unusable
from tulu.data.nested import unroll
from tulu.data.preferences import parse_preference
from tulu.data.sources import Row, load_rows
from tulu.errors import DataError
from tulu.reward_models.items import Item, parse_parts
from tulu.reward_models.sections import KNOWN, PRIOR_SCORED, PRIOR_UNSCORED, Data, check
from tulu.types import Message

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
"""Folders of princeton-nlp/LLMBar, and the subsets of RewardBench 1 that hold the same rows."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The items of a data set, the rules that aggregate their scores, and a hash of their content."""

    name: str
    data: Data
    items: Sequence[Item]
    digest: str


def load(data: str, limit: int | None = None) -> Loaded:
    """The items of v1, v2, prior, v1+prior, v1=PATH, v2=PATH, a file, a folder of files, or a hub name.

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
        sources = [source for part in data.split("+") for source in HUB[part]]
        items = _from_sources([(source, source.split if source in HUB["prior"] else "all") for source in sources])
        name = data
    else:
        items = _from_path(data)
        kind, name = _rules(items), _label(Path(data))
    _check_subsets(items, kind)
    if limit is not None:
        places: dict[str, Iterator[int]] = defaultdict(count)
        items = [item for item in items if next(places[item.subset]) < limit]
    return Loaded(name, kind, items, _digest(items))


def _from_path(name: str) -> list[Item]:
    path = Path(name).expanduser()
    if not path.is_dir() or any((path / marker).exists() for marker in ("dataset_info.json", "dataset_dict.json")):
        return _from_sources([(Source(name=name, fraction=1.0), _subset_of(path))])
    files = sorted(file for file in path.rglob("*") if file.is_file() and data_suffix(file.name) in DATA_SUFFIXES)
    if not files:
        raise DataError(f"{name}: no {', '.join(DATA_SUFFIXES)} file in this folder")
    return _from_sources([(Source(name=str(file), fraction=1.0), _subset_of(file)) for file in files])


def _from_sources(named: Sequence[tuple[Source, str]]) -> list[Item]:
    """The items of several sources, each with the subset of its rows that name none."""
    # One file after the other: a folder of them need not fit into memory.
    return parse_parts((unroll(load_rows(source), "pairs"), partial(read_item, subset=subset)) for source, subset in named)


def read_item(row: Row, subset: str) -> Item:
    """A row of preferences as an item; `subset` is used where the row names none. DataError names the row and what is wrong."""
    try:
        preference = parse_preference(row)
    except Misfit:
        raise
    except Unusable as error:
        raise DataError(f"{row.id}: {error.detail}") from None
    conversations = [*preference.chosen, *preference.rejected]
    prompt = _shared_beginning(conversations)
    answers = [tuple(conversation[len(prompt) :]) for conversation in conversations]
    # A prior set's own subsets are no subsets of the benchmark.
    named = None if subset in (*PRIOR_SCORED, *PRIOR_UNSCORED) else row.columns.get("subset")
    item_id, split = row.columns.get("id"), len(preference.chosen)
    return Item(
        row.id if item_id is None else str(item_id),
        subset if named is None else str(named),
        prompt,
        tuple(answers[:split]),
        tuple(answers[split:]),
        row.id,
    )


def _shared_beginning(conversations: Sequence[Sequence[Message]]) -> tuple[Message, ...]:
    """The messages with which all conversations begin; each keeps its last message."""
    turns = zip(*(conversation[:-1] for conversation in conversations), strict=False)
    return tuple(messages[0] for messages in takewhile(lambda messages: messages.count(messages[0]) == len(messages), turns))


def _subset_of(path: Path) -> str:
    """The subset of rows that name none: LLMBar's folder, else the file's name (hub files end in -00000-of-00001)."""
    if path.name.startswith("dataset.json") and path.parent.name in LLMBAR:
        return LLMBAR[path.parent.name]
    return _stem(path).split("-0000")[0]


def _stem(path: Path) -> str:
    """A path's name without its suffixes."""
    name = path.name.removesuffix(".gz")
    return Path(name).stem if data_suffix(name) in DATA_SUFFIXES else name or "data"


def _label(path: Path) -> str:
    """FOLDER-NAME of a path, because files such as test.jsonl.gz lie in many folders."""
    return "-".join(part for part in (path.parent.name, _stem(path)) if part not in ("", ".."))


def _rules(items: Sequence[Item]) -> Data:
    """The rules of items that name none: v1 or v2 where every subset is one of theirs, else free."""
    names = {item.subset for item in items}
    pairs = all(len(item.answers) == 2 for item in items)
    if pairs and names <= set(KNOWN["v1"] or ()):
        return "v1"
    # A subset called Math or Safety may be anyone's; lists of answers under nothing but v2's names are v2.
    if not pairs and names <= set(KNOWN["v2"] or ()):
        return "v2"
    return "free"


def _check_subsets(items: Sequence[Item], data: Data) -> None:
    subsets = KNOWN[data]
    if subsets is None:
        return
    unknown: dict[str, str] = {}
    for item in items:
        if item.subset not in subsets:
            unknown.setdefault(item.subset, item.where)
    if unknown:
        lines = "\n".join(f"{where}: unknown subset {name!r} for {data}" for name, where in unknown.items())
        raise DataError(f"{lines}\nknown subsets: {', '.join(subsets)}; give the path alone for data of your own")
    # Whatever could not be aggregated afterwards, such as a Ties id, is found before anything is scored.
    check([item.scored([0.0] * len(item.answers)) for item in items], data)


def _digest(items: Iterable[Item]) -> str:
    """Hash of what is scored, 32 hex digits; where the rows lie does not matter."""
    total = hashlib.blake2b(digest_size=16)
    for item in items:
        content = {**asdict(item), "where": ""}
        if item.id == item.where:
            content["id"] = ""
        total.update(json.dumps(content, sort_keys=True).encode())
    return total.hexdigest()
