"""Imports point down the ladder of chapters, no files import each other in a circle, and nothing outgrows its size.

The ladder is that of docs/architecture.md. What counts as an import: every `import` statement, inside functions and for
types alone too, and every dotted name of a module that stands in a string, such as the runners of the stage table.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LADDER: tuple[tuple[str, ...], ...] = (
    ("errors", "types", "files", "progress", "intervals", "deadlines", "children", "user_code", "losses", "advantages"),
    ("verifiers",),
    ("config",),
    ("grading",),
    ("data",),
    ("environments",),
    ("model",),
    ("train", "rollout"),
    ("reward_models",),
    ("evaluation", "report"),
    ("stages", "commands"),
    ("cli", "__main__"),
)
"""Chapters and plain files from the bottom. One imports what stands on the rungs below, and the files of its own chapter."""
BESIDE_EACH_OTHER = {
    ("losses", "errors"),
    ("files", "errors"),
    ("user_code", "errors"),
    ("user_code", "children"),
    ("__main__", "cli"),
}
"""(importer, imported) pairs of plain files on one rung."""
WITHOUT_TORCH = ("errors", "types", "files", "progress", "intervals", "deadlines", "children", "user_code", "verifiers", "config")
"""Chapters and files that do not import torch, so that a mistake is told at once."""
STAGES = (
    "stages.base",
    "stages.sft",
    "stages.merge",
    "stages.dpo",
    "stages.rlvr",
    "reward_models.training",
    "evaluation.evaluate",
)
"""The files that run a stage, none of which imports another."""
MAX_LINES = 330
MAX_FUNCTION_LINES = 60
DOTTED = re.compile(r"tulu(?:\.[a-z_][a-z0-9_]*)+")


def module_of(path: Path) -> str:
    """`tulu/rollout/engine.py` -> `rollout.engine`; the linked folders are read where they lie."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in (parts[1:] if parts[0] == "tulu" else parts) if part != "__init__")


@cache
def sources() -> dict[str, Path]:
    """Every module of the package by its name without `tulu.`."""
    folders = [ROOT / "tulu", ROOT / "verifiers", ROOT / "reward_models"]
    # rglob does not follow the links tulu/verifiers and tulu/reward_models.
    paths = [path for folder in folders for path in folder.rglob("*.py") if not _linked(path)]
    return {module_of(path): path for path in paths}


def _linked(path: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents if parent != ROOT and ROOT in parent.parents)


def chapter(module: str) -> str:
    """The folder below `tulu/` that a module lies in, or its own name where it lies in none."""
    return module.partition(".")[0]


def rung(module: str) -> int:
    """The place of a module's chapter on the ladder, counted from the bottom."""
    found = [level for level, names in enumerate(LADDER) if chapter(module) in names]
    assert found, f"tulu.{module} belongs to no chapter: move it into one, or add its chapter to LADDER in {Path(__file__).name}"
    return found[0]


@cache
def imports_of(module: str) -> frozenset[str]:
    """The modules of the package that a module imports or names."""
    return frozenset(name for name in _mentioned(module) if name and name != module)


def _mentioned(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(sources()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.removeprefix("tulu.") for name in node.names if name.name.startswith("tulu."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; write the whole name"
            if node.module == "tulu" or (node.module or "").startswith("tulu."):
                base = (node.module or "").removeprefix("tulu").removeprefix(".")
                for name in node.names:
                    inner = f"{base}.{name.name}".removeprefix(".")
                    yield inner if inner in sources() else base
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and DOTTED.fullmatch(node.value):
            named = node.value.removeprefix("tulu.")
            yield from (name for name in (named, named.rpartition(".")[0]) if name in sources())


@pytest.mark.parametrize("module", sorted(name for name in sources() if name))
def test_imports_point_down(module: str) -> None:
    for imported in imports_of(module):
        if chapter(imported) == chapter(module) or (module, imported) in BESIDE_EACH_OTHER:
            continue
        # cli resolves the runners that config.stages names; the ladder holds for cli, which imports them.
        importer = "cli" if module == "config.stages" and imported in STAGES else module
        assert rung(imported) < rung(importer), f"{module} imports {imported}, which is not below it on the ladder"


def test_no_circle_of_files() -> None:
    """Follow every import, of types alone and inside functions too; a file that is reached from itself is in a circle."""
    graph = {module: {name for name in imports_of(module) if name in sources()} for module in sources()}
    # The stage table names the runners for cli, and imports none of them.
    graph["config.stages"] -= set(STAGES)
    done: set[str] = set()
    for start in graph:
        _walk(start, graph, [], done)


def _walk(module: str, graph: dict[str, set[str]], path: list[str], done: set[str]) -> None:
    assert module not in path, " -> ".join([*path[path.index(module) :], module])
    if module in done:
        return
    for imported in sorted(graph[module]):
        _walk(imported, graph, [*path, module], done)
    done.add(module)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_never_import_each_other(stage: str) -> None:
    assert imports_of(stage) & set(STAGES) == set()


def test_the_package_itself_imports_nothing() -> None:
    for module, path in sources().items():
        if path.name == "__init__.py":
            assert imports_of(module) == frozenset(), f"{path} imports something; import it where it is used"


def test_chapters_without_torch() -> None:
    for module, path in sources().items():
        if chapter(module) in WITHOUT_TORCH:
            heavy = {name for name in _libraries(path) if name in ("torch", "transformers", "trl", "accelerate", "vllm", "ray")}
            assert heavy == set(), f"{module} imports {heavy} when it is loaded"


def _libraries(path: Path) -> Iterator[str]:
    """The libraries that a file imports as it is loaded."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("name", ["verifiers", "reward_models"])
def test_linked_folders_are_imported_by_their_name_in_the_package(name: str) -> None:
    for module, path in sources().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] != name, f"{module}: import tulu.{name}, not {name}"


def test_no_file_outgrows_its_subject() -> None:
    files = [*sources().values(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_no_function_outgrows_a_screen() -> None:
    long = {}
    for module, path in sources().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{module}.{node.name}"] = lines
    assert long == {}
