"""Python files of the user: what they may import, what is refused, and by what content they are known."""

import pickle
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tulu.errors import RecipeError
from tulu.user_code import import_file, source_digests, source_files


@pytest.fixture(autouse=True)
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports is gone behind it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def written(folder: Path, first: str, **beside: str) -> Path:
    """The file mine.py, and others beside it by their names, in which _in_ stands for a folder."""
    texts = {"mine": first} | beside
    for name, text in texts.items():
        file = folder / f"{name.replace('_in_', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "mine.py"


def names(file: Path) -> list[str]:
    return [one.relative_to(file.parent).as_posix() for one in source_files(file)]


def test_what_lies_beside_is_found_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(
        tmp_path / "a", "import odd_rules\nfrom odd_kit import more", odd_rules="LIMIT = 3", odd_kit_in_more="MORE = 4"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    module = import_file(Path("../a/mine.py"), "verifier")
    assert (module.odd_rules.LIMIT, module.more.MORE) == (3, 4)
    assert names(file) == ["mine.py", "odd_rules.py", "odd_kit/more.py"]


def test_dataclasses_with_hints_as_texts_find_their_module(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Rule:\n    weight: float = 2.0"
    )
    assert import_file(written(tmp_path, text), "verifier").Rule().weight == 2.0


def test_a_file_is_known_by_all_that_it_imports_from_beside_itself(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "import json, numpy\ndef score(a, b):\n    from near.inside import f\n    import near_too as n",
        near_in___init__="",
        near_in_inside="from . import deep\nfrom .. import never\nfrom .deeper import *\nimport mine",
        near_in_deep="",
        near_in_deeper="x = 1",
        near_too="import json",
        json="raise SystemExit",
        unrelated="",
    )
    expected = ["mine.py", "near/__init__.py", "near/inside.py", "near_too.py", "near/deep.py", "near/deeper.py"]
    assert sorted(names(file)) == sorted(expected)
    before = source_digests(file)
    assert [*before] == names(file)
    (tmp_path / "near" / "deeper.py").write_text("x = 2")
    (tmp_path / "unrelated.py").write_text("x = 2")
    after = source_digests(file)
    assert [name for name in before if before[name] != after[name]] == ["near/deeper.py"]


def test_what_is_no_python_is_known_by_its_own_content(tmp_path: Path) -> None:
    assert names(written(tmp_path, "import (")) == ["mine.py"]


def test_a_name_that_means_something_else_here_is_refused(tmp_path: Path) -> None:
    """Two verifiers in two folders with a helper of one name: the second would be given the helper of the first."""
    first = written(tmp_path / "one", "from odd_help import GOOD", odd_help="GOOD = 1")
    second = written(tmp_path / "two", "from odd_help import GOOD", odd_help="GOOD = 2")
    assert import_file(first, "verifier 'a'").GOOD == 1
    refused = [
        (second, r"verifier: .*two/mine\.py imports odd_help, which is .*one/odd_help\.py here and not .*two/odd_help\.py; give"),
        (
            written(tmp_path / "three", "import numpy", numpy=""),
            r"numpy, which is .*site-packages.* here and not .*three/numpy\.py",
        ),
        (
            written(tmp_path / "four", "import odd_help.part", odd_help_in___init__="", odd_help_in_part=""),
            r"imports odd_help, which is .*one/odd_help\.py here and not .*four/odd_help/__init__\.py",
        ),
    ]
    for file, told in refused:
        with pytest.raises(RecipeError, match=told):
            import_file(file, "verifier")


def test_a_file_named_as_a_package_may_import_that_package(tmp_path: Path) -> None:
    itself = tmp_path / "four" / "mdurl.py"
    written(tmp_path / "four", "", mdurl="import mdurl\nASKED = mdurl.encode('a b')")
    assert import_file(itself, "env").ASKED == "a%20b", "one that has the name itself means the other"


def test_a_folder_without_init_means_the_one_beside_the_file(tmp_path: Path) -> None:
    """Python makes one package of all folders of a name, and looks for a module in the first of them first."""
    one, two = (
        written(tmp_path / name, "from odd_space.part import X", odd_space_in_part=f"X = '{name}'") for name in ("a", "b")
    )
    alone = written(tmp_path / "c", "from odd_space.only import X", odd_space_in_only="X = 'c'")
    assert import_file(one, "verifier").X == "a"
    with pytest.raises(RecipeError, match=r"imports odd_space\.part, which is .*a/odd_space/part\.py here and not .*b/odd_space"):
        import_file(two, "verifier")
    assert import_file(alone, "verifier").X == "c"


def test_helpers_that_are_links_or_compiled_are_those_beside_the_file(tmp_path: Path) -> None:
    file = written(tmp_path / "a", "from odd_linked import A\nfrom odd_kept.part import B\nfrom odd_compiled import C")
    written(tmp_path / "kept", "", odd_linked="A = 1", odd_kept_in___init__="", odd_kept_in_part="B = 2", odd_compiled="C = 3")
    (tmp_path / "a" / "odd_linked.py").symlink_to(tmp_path / "kept" / "odd_linked.py")
    (tmp_path / "a" / "odd_kept").symlink_to(tmp_path / "kept" / "odd_kept")
    py_compile.compile(str(tmp_path / "kept" / "odd_compiled.py"), str(tmp_path / "a" / "odd_compiled.pyc"))
    module = import_file(file, "verifier")
    assert (module.A, module.B, module.C) == (1, 2, 3)
    found = ["mine.py", "odd_linked.py", "odd_kept/__init__.py", "odd_kept/part.py", "odd_compiled.pyc"]
    assert sorted(source_digests(file)) == sorted(found)
    linked = tmp_path / "linked.py"
    linked.symlink_to(file)
    assert source_digests(linked) == source_digests(file)


def test_a_file_is_run_once_and_any_name_will_do(tmp_path: Path) -> None:
    file = tmp_path / "ünser score-v1.2 (neu).py"
    file.write_text("from dataclasses import dataclass\n@dataclass\nclass Rule:\n    x: 'int' = 1\nY = Rule()")
    module = import_file(file, "verifier")
    assert pickle.loads(pickle.dumps(module.Y)) == module.Y
    assert import_file(file, "env") is module


def test_what_could_not_be_imported_is_imported_anew(tmp_path: Path) -> None:
    file = written(tmp_path, "1/0")
    with pytest.raises(RecipeError, match="ZeroDivisionError"):
        import_file(file, "verifier")
    assert import_file(written(tmp_path, "X = 1  # longer than before"), "verifier").X == 1


def test_reading_what_a_file_imports_warns_of_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    file = written(tmp_path, "import odd_beside\nPATTERN = '\\d'", odd_beside="")
    assert names(file) == ["mine.py", "odd_beside.py"]
    assert not recwarn.list


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = written(tmp_path, "import odd_memory")
    # The first page of a process's memory is a file that nobody can read.
    (tmp_path / "odd_memory.py").symlink_to("/proc/self/mem")
    with pytest.raises(RecipeError, match=r"odd_memory\.py cannot be read: Input/output error"):
        source_digests(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import odd_missing.part",
            r"'odd_missing'; install odd_missing beside tulu, or put odd_missing\.py into /",
        ),
        ("from .rules import x", "attempted relative import.*; write `import NAME` in place of `from .NAME`"),
        ("import sys\nsys.exit(0)", "SystemExit: 0; let it end no program"),
        ("class E(BaseException):\n    def __str__(self): raise ValueError\nraise E", r"cannot be imported: E; correct the file"),
        ("def (", r"cannot be imported: SyntaxError: .*correct the file"),
    ],
)
def test_what_cannot_be_imported_is_one_message_with_a_cure(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"verifier 'mine': .*mine\.py.*{message}"):
        import_file(written(tmp_path, text), "verifier 'mine'")


def test_an_interrupt_is_none_of_its_faults(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        import_file(written(tmp_path, "raise KeyboardInterrupt"), "env")


def test_what_is_no_python_file_is_refused(tmp_path: Path) -> None:
    for name in ("missing.py", "notes.txt", ""):
        with pytest.raises(RecipeError, match=r"env: .* is no Python file"):
            import_file(tmp_path / name, "env")
