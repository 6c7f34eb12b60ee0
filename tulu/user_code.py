"""Python files of the user, which hold verifiers and environments: how they are imported, and by what content they are known.

A file finds what lies beside it by its name, as one that is run with `python FILE.py` does. Python's own modules and installed
packages come first here, since the process that imports the file has others of its own to import.
"""

import ast
import hashlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Iterator
from importlib.machinery import all_suffixes
from pathlib import Path
from types import ModuleType

from tulu.children import MEMORY_MB
from tulu.errors import RecipeError


def import_file(file: Path, whose: str) -> ModuleType:
    """The module of a Python file, which runs once in a process. RecipeError, behind `whose`, where it cannot be imported."""
    file = file.expanduser()
    stem = re.sub(r"\W", "_", file.stem)
    name = f"tulu_user_{hashlib.blake2b(str(file.resolve()).encode(), digest_size=6).hexdigest()}_{stem}"
    if name in sys.modules:
        # Two functions of one file share what it keeps.
        return sys.modules[name]
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
    # A user's file may raise anything, SystemExit too, and what it raises is told.
    except BaseException as fault:
        del sys.modules[name]
        if isinstance(fault, KeyboardInterrupt):
            raise
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
    folder, found = file.expanduser().resolve().parent, dict[str, str]()
    for one in source_files(file):
        try:
            content = one.read_bytes()
        except OSError as fault:
            raise RecipeError(f"{one} cannot be read: {fault.strerror}") from fault
        found[one.relative_to(folder).as_posix()] = hashlib.blake2b(content, digest_size=16).hexdigest()
    return found


def content_digest(file: Path) -> str:
    """32 hex digits over all of these together."""
    return hashlib.blake2b(repr(source_digests(file)).encode(), digest_size=16).hexdigest()


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
        with warnings.catch_warnings(action="ignore"):
            # Python warns of odd spellings where the file is imported.
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
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
        for suffix in all_suffixes():
            yield from (one for one in (place / f"__init__{suffix}", place.with_name(part + suffix)) if one.is_file())


def _hidden(file: Path) -> Iterator[str]:
    """What it imports from beside itself, where that name means something else in this process."""
    folder = file.resolve().parent
    for helper in source_files(file)[1:]:
        place = helper.parent if helper.stem == "__init__" else helper.with_name(helper.name.partition(".")[0])
        name = ".".join(place.relative_to(folder).parts)
        if any(one.stem == "__init__" and one.parent in place.parents for one in _at(folder, name)):
            # It is found within a package, which is looked at itself.
            continue
        try:
            spec = importlib.util.find_spec(name)
        # A module that a program made has none, and what stands in the place of a folder may be no package.
        except (ValueError, ImportError):
            spec = None
        found = spec.origin if spec else None
        if found is None or Path(found).resolve() not in [one.resolve() for one in _at(folder, name)]:
            yield f"{name}, which is {found or 'another module'} here and not {helper}"


def _cure(fault: BaseException, file: Path) -> str:
    if isinstance(fault, ModuleNotFoundError) and fault.name:
        return f"install {fault.name} beside tulu, or put {fault.name.partition('.')[0]}.py into {file.resolve().parent}"
    if isinstance(fault, ImportError) and "relative import" in str(fault):
        return "write `import NAME` in place of `from .NAME`: what lies beside the file is found by its name"
    if isinstance(fault, MemoryError):
        return f"import less: there is no more memory, of which a process that grades has {MEMORY_MB} MB"
    if isinstance(fault, SystemExit):
        return "let it end no program: what is meant for `python FILE.py` stands behind `if __name__ == '__main__':`"
    return "correct the file"
