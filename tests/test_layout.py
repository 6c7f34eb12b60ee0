"""The layout that lets top-level verifiers/ and reward_models/ be imported as tulu.* without shadowing PyPI's names."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ["verifiers", "reward_models", "recipes"])
def test_the_linked_folders_are_links_to_the_top_level(name: str) -> None:
    link = ROOT / "tulu" / name
    assert link.is_dir(), f"tulu/{name} is not a folder: clone with `git config core.symlinks true`"
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"


@pytest.mark.parametrize("name", ["verifiers", "reward_models", "recipes"])
def test_the_linked_folders_are_no_packages_by_themselves(name: str) -> None:
    assert not list((ROOT / name).rglob("__init__.py"))


def test_no_file_is_a_bag_of_helpers() -> None:
    assert not [path for path in sources() if path.name in ("utils.py", "helpers.py", "common.py", "misc.py")]


def test_no_file_names_a_machine_or_a_registry() -> None:
    private = re.compile(r"(/root/|/home/\w|/work/|/opt/|/weka/|file://|extra-index-url\s*=)")
    named = [*sources(), *ROOT.glob("*.toml"), *ROOT.glob("*.txt"), ROOT / "Makefile", *(ROOT / "recipes").glob("*.yaml")]
    assert {path.name: found[0] for path in named if (found := private.search(path.read_text()))} == {}


def test_git_keeps_the_links_and_the_executable_bit() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modes = {line.split("\t")[1]: line.split()[0] for line in listing.splitlines()}
    assert {modes[f"tulu/{name}"] for name in ("verifiers", "reward_models", "recipes")} == {"120000"}
    assert modes[".ci/run"] == "100755"


def test_every_file_beside_the_code_is_package_data() -> None:
    """A YAML, template or list that no pattern names would be missing from a wheel, and from nowhere else."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    shipped = {
        file for package, globs in patterns.items() for glob in globs for file in (ROOT / package.replace(".", "/")).glob(glob)
    }
    linked = [ROOT / "tulu" / name for name in ("verifiers", "reward_models", "recipes")]
    files = {file for folder in (ROOT / "tulu", *linked) for file in folder.rglob("*") if file.is_file()}
    data = {file for file in files if file.suffix not in (".py", ".pyc") and file.name != "py.typed"}
    assert {str(file.relative_to(ROOT)) for file in data - shipped} == set()


def sources() -> list[Path]:
    return [path for folder in ("tulu", "verifiers", "reward_models") for path in (ROOT / folder).rglob("*.py")]
