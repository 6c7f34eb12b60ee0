"""The command line of bubblewrap: what a sandbox shows a program of this machine, and how it is closed off.

The interpreter and its packages are shown from a copy in a folder that tells nothing, because a program can read the names of
the folders that are mounted for it (/proc/self/mountinfo).
"""

import importlib.util
import os
import shutil
import stat
import sys
import sysconfig
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from tulu.errors import RecipeError

NOBODY = 65534
UNSAFE = "TULU_UNSAFE_LOCAL"
"""Environment variable that allows programs to run without a sandbox."""
PACKAGES = "TULU_SANDBOX_PACKAGES"
"""Environment variable with the packages that programs and tests may import, separated by commas; numpy where it is not set."""
SCRATCH_BYTES = 32 << 20
"""Size of the folder that a program may write to."""
_INSIDE = "/python"
"""The folder of the interpreter inside the sandbox, unless it lies in /usr."""
_INSIDE_PACKAGES = "/packages"
_COPY_SECONDS = 5 * 86_400
"""Age at which a copy is made anew, because machines delete old files of their folder for temporary ones."""
_NOT_COPIED = ("test", "site-packages", "idlelib", "tkinter", "ensurepip", "turtledemo", "config-*", "lib2to3")


def unsafe() -> bool:
    """Whether programs may run without a sandbox."""
    return os.environ.get(UNSAFE) == "1"


def packages() -> tuple[str, ...]:
    """The packages beyond the standard library that programs and tests may import: those of the option that are installed."""
    names = [name.strip() for name in os.environ.get(PACKAGES, "numpy").split(",") if name.strip()]
    return tuple(name for name in names if importlib.util.find_spec(name) is not None)


def _cache() -> Path:
    """A folder of this user that nobody else can write to."""
    for parent in ("/var/tmp", tempfile.gettempdir()):
        folder = Path(parent, f"tulu-sandbox-{os.geteuid()}")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            state = folder.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o022:
            return folder
    raise RecipeError("programs need a folder of this user's own in /var/tmp or the folder for temporary files")


def _copied(name: str, sources: list[tuple[Path, str]]) -> Path:
    """A copy of some folders and files under given names, made where there is no fresh one."""
    cache = _cache()
    target = cache / f"{name}-{int(time.time() // _COPY_SECONDS)}"
    if target.is_dir():
        return target
    for old in cache.glob(f"{name}-*"):
        if time.time() - old.stat().st_mtime > 2 * _COPY_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(dir=cache))
    fresh.chmod(0o755)
    for source, place in sources:
        (fresh / place).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, fresh / place, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
        elif source.exists():
            shutil.copy2(source, fresh / place)
    try:
        fresh.rename(target)
    except OSError:
        # Another process was faster.
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _version() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


@lru_cache(maxsize=2)
def interpreter(inside: bool) -> Path:
    """The path of the interpreter, as seen inside the sandbox or outside; never of a virtual environment."""
    prefix = Path(sys.base_prefix).resolve()
    shown = Path(_INSIDE) if inside and not prefix.is_relative_to("/usr") else prefix
    return shown / "bin" / _version()


def shared_library(prefix: Path | None = None) -> dict[str, str]:
    """The variable by which an interpreter that was built with --enable-shared finds its library; empty for any other."""
    folder = (prefix or Path(sys.base_prefix).resolve()) / "lib"
    return {"LD_LIBRARY_PATH": str(folder)} if sysconfig.get_config_var("Py_ENABLE_SHARED") else {}


def _libraries(prefix: Path) -> list[str]:
    return [part for name, value in shared_library(prefix).items() for part in ("--setenv", name, value)]


def _interpreter_mount() -> list[str]:
    prefix = Path(sys.base_prefix).resolve()
    if prefix.is_relative_to("/usr"):
        return _libraries(prefix)
    version = _version()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    sources = [(prefix / "bin" / version, f"bin/{version}"), (library, f"lib/{version}")]
    sources += [(path, f"lib/{path.name}") for path in (prefix / "lib").glob("libpython*.so*") if not path.is_symlink()]
    sources += [(path.resolve(), f"lib/{path.name}") for path in (prefix / "lib").glob("libpython*.so*") if path.is_symlink()]
    return ["--ro-bind", str(_copied(f"{version}.{sys.version_info.micro}", sources)), _INSIDE, *_libraries(Path(_INSIDE))]


def _package_mount() -> list[str]:
    sources = list[tuple[Path, str]]()
    for name in packages():
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(next(iter(spec.submodule_search_locations)))
        # Wheels keep the shared libraries of a package in a folder beside it.
        sources += [(path, path.name) for path in (folder, folder.with_name(f"{name}.libs")) if path.is_dir()]
    if not sources:
        return []
    stamp = "-".join(f"{place}-{int(path.stat().st_mtime)}" for path, place in sources)
    return ["--ro-bind", str(_copied(stamp, sources)), _INSIDE_PACKAGES]


def command() -> tuple[str, ...]:
    """The command that starts a sandbox, up to the program; RecipeError where bubblewrap is not installed."""
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise RecipeError(
            "programs are only run in a sandbox, and bubblewrap is not installed: "
            f"apt install bubblewrap (or --unsafe-local, or {UNSAFE}=1)"
        )
    mounts = ["--ro-bind", "/usr", "/usr"]
    for name in ("lib", "lib32", "lib64", "bin"):
        path = Path("/", name)
        if path.is_symlink():
            mounts += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            mounts += ["--ro-bind", str(path), str(path)]
    as_root = ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    as_user = ("--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), "--disable-userns", "--cap-drop", "ALL")
    return (
        bubblewrap,
        *(as_root if os.geteuid() == 0 else as_user),
        *(f"--unshare-{name}" for name in ("ipc", "pid", "net", "uts", "cgroup-try")),
        *("--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"),
        *mounts,
        *_interpreter_mount(),
        *_package_mount(),
        # The loader reads here where a libpython outside the default folders lies.
        *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp"),
        *("--chdir", "/tmp"),
        # Only the scratch folder can be written; /dev/shm would be memory without a bound.
        *("--remount-ro", "/dev", "--remount-ro", "/"),
    )
