"""Task sets of Prime Intellect's package `verifiers`, as a recipe names them: `verifiers:OWNER/NAME` or `verifiers:./folder`.

Nothing is imported here: that package takes seconds to load, and a mistake should be told at once.
"""

from importlib.util import find_spec
from pathlib import Path

VERIFIERS = "verifiers"
"""What stands before the name of a task set."""
REASONING_GYM = "reasoning_gym"
"""What stands before the name of a data set of reasoning-gym, another package that makes rows."""
INSTALL = "pip install 'tulu[environments]'"


def is_local(name: str) -> bool:
    """Whether a task set is named by its place on disk."""
    return name.startswith((".", "/", "~")) or name.endswith(".py")


def module_at(name: str) -> tuple[str, Path | None]:
    """The module that holds a task set, and the folder that it is imported from, where that is none of the installed ones.

    A name of the hub loses its owner and version, as the package itself reads it. A folder is a package, or holds a module of
    its own name (the hub's layout): ./my-game, with my_game.py or my_game/ in it.
    """
    if not is_local(name):
        return _importable(name.rsplit("/", 1)[-1].split("@", 1)[0]), None
    path = Path(name).expanduser().resolve()
    if path.suffix == ".py":
        return path.stem, path.parent
    module = _importable(path.name)
    inside = (path / module).is_dir() or (path / f"{module}.py").is_file()
    return module, path if inside else path.parent


def _importable(name: str) -> str:
    return name.replace("-", "_").lower()


def taskset_files(name: str) -> list[Path]:
    """The Python files of a task set, in order, by which a run is pinned to it."""
    module, folder = module_at(name)
    if folder is not None:
        places = [folder / module, folder / f"{module}.py"]
    else:
        spec = find_spec(module)
        places = [Path(place) for place in (*(spec.submodule_search_locations or ()), spec.origin or "")] if spec else []
    return sorted({file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place]) if file.is_file()})


def taskset_problem(name: str) -> str | None:
    """What is wrong with the name of a task set, or None."""
    if not name:
        return "names no task set; write verifiers:OWNER/NAME, or verifiers:./folder"
    package = find_spec(VERIFIERS)
    # This project has a folder of the same name, which Python takes for a package without files where nothing else is there.
    if package is None or package.origin is None:
        return f"the package verifiers is not installed: {INSTALL}"
    root = Path(package.origin).parent
    if not (root / "v1").is_dir():
        return f"the package verifiers that is installed is too old, it has no v1: {INSTALL}"
    module, folder = module_at(name)
    if folder is not None:
        found = (folder / module / "__init__.py").is_file() or (folder / f"{module}.py").is_file()
        wanted = f"{module}.py or {module}/__init__.py"
        return None if found else f"no task set there; a folder holds {wanted}, or is a package (looked from {Path.cwd()})"
    if (root / "v1" / "tasksets" / module).is_dir() or find_spec(module) is not None:
        return None
    return f"no module {module} is installed; install it (prime env install {name}), or name its folder, as verifiers:./folder"
