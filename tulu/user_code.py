"""Python files of the user, which hold verifiers and environments: how they are imported, and by what content they are known.

A file finds what lies beside it by its name, as one that is run with `python FILE.py` does. Python's own modules and installed
packages come first here, since the process that imports the file has others of its own to import.
"""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tulu.errors import RecipeError


def import_file(file: Path, whose: str) -> ModuleType:
    """The module of a Python file, which is run anew. RecipeError, behind `whose`, where it cannot be imported."""
    file = file.expanduser()
    name = f"tulu_user_{hashlib.blake2b(str(file.resolve()).encode(), digest_size=6).hexdigest()}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise RecipeError(f"{whose}: {file} is no Python file")
    if (folder := str(file.resolve().parent)) not in sys.path:
        sys.path.append(folder)
    if hidden := next(_hidden(file), ""):
        raise RecipeError(f"{whose}: {file} imports {hidden}; give one of the two another name")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look a class's module up by its name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    # A user's file may raise anything, SystemExit too, and what it raises is told.
    except BaseException as fault:
        raise RecipeError(f"{whose}: {file} cannot be imported: {told(fault)}; {_cure(fault, file)}") from fault
    return module


def told(fault: BaseException) -> str:
    """An exception of a user's code in words; of one without a text, or whose text cannot be made, the kind."""
    try:
        text = str(fault)
    # Its text is the user's code too.
    except Exception:  # noqa: BLE001
        text = ""
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__


def source_digests(file: Path) -> dict[str, str]:
    """32 hex digits over the file and over each one beside it that it imports, by their names within its folder."""
    folder = file.expanduser().resolve().parent
    return {
        one.relative_to(folder).as_posix(): hashlib.blake2b(one.read_bytes(), digest_size=16).hexdigest()
        for one in source_files(file)
    }


def source_files(file: Path) -> list[Path]:
    """The file, and what it imports out of its own folder, which may import further files there.

    Only `import` statements are seen, wherever they stand. What is installed is not part of it.
    """
    file = file.expanduser().resolve()
    folder, found, ahead = file.parent, list[Path](), [file]
    while ahead:
        if (one := ahead.pop(0)) not in found:
            found.append(one)
            ahead += [helper for name in _imports(one, folder) for helper in _at(folder, name)]
    return found


def _imports(file: Path, folder: Path) -> Iterator[str]:
    """The dotted names of what a file imports and may have beside it; none where it is no Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    package = file.parent.relative_to(folder).parts
    for node in ast.walk(tree):
        names = list[str]()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
        yield from (name for name in names if name.partition(".")[0] not in sys.stdlib_module_names)


def _at(folder: Path, name: str) -> Iterator[Path]:
    """The files that run where a dotted name is imported out of a folder: those of its packages, and its own."""
    place = folder
    for part in name.split("."):
        place = place / part
        yield from (one for one in (place / "__init__.py", place.with_suffix(".py")) if one.is_file())


def _hidden(file: Path) -> Iterator[str]:
    """What it imports from beside itself, where that name means something else in this process."""
    folder = file.resolve().parent
    for helper in source_files(file)[1:]:
        name, *inside = helper.relative_to(folder).with_suffix("").parts
        if inside not in ([], ["__init__"]):
            continue
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:
            # A module that a program made has none.
            spec = None
        found = spec.origin if spec else None
        if found is None or Path(found).resolve() != helper:
            yield f"{name}, which is {found or 'another module'} here and not {helper}"


def _cure(fault: BaseException, file: Path) -> str:
    if isinstance(fault, ModuleNotFoundError) and fault.name:
        return f"install {fault.name} beside tulu, or put {fault.name.partition('.')[0]}.py into {file.resolve().parent}"
    if isinstance(fault, ImportError) and "relative import" in str(fault):
        return "write `import NAME` in place of `from .NAME`: what lies beside the file is found by its name"
    if isinstance(fault, SystemExit):
        return "let it end no program: what is meant for `python FILE.py` stands behind `if __name__ == '__main__':`"
    return "correct the file"
