"""Work shared out to processes of their own, in order: pickled batches go in, pickled results come out.

A worker is a new interpreter that imports one function. It is never forked, because this process may hold a GPU and threads,
and not started by multiprocessing, which would run the caller's main module again.
"""

import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib import import_module
from queue import SimpleQueue
from typing import IO, Any

from tulu.errors import DataError, TuluError

_HEADER = struct.Struct("<Q")
"""The length of a message in bytes, which is sent before it."""
_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from tulu.data.workers import serve; serve(sys.argv[2])"
_ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
"""Every core has a worker already."""


def shared_out(function: str, settings: Any, batches: Iterable[Any], workers: int) -> Iterator[Any]:
    """`function(settings, batch)` of every batch, in order, by so many worker processes.

    `function` is a dotted name. An error in a batch is raised in its place, and what stood before it is yielded first, so that
    nothing depends on the number of workers. Raises DataError where a worker dies.
    """
    with ExitStack() as stack:
        free: SimpleQueue[_Worker] = SimpleQueue()
        for _ in range(workers):
            worker = _Worker(function, settings)
            stack.callback(worker.close)
            free.put(worker)
        threads = ThreadPoolExecutor(workers, "tokenise")
        # Threads that wait for a worker end when it does, so the workers are closed before the threads are waited for.
        stack.push(lambda *_: threads.shutdown(wait=False, cancel_futures=True))

        def work(batch: Any) -> Any:
            worker = free.get()
            try:
                return worker.ask(batch)
            finally:
                free.put(worker)

        waiting: deque[Future[Any]] = deque()
        stream, source_error = iter(batches), None
        while source_error is None:
            try:
                batch = next(stream)
            except StopIteration:
                break
            except TuluError as error:
                source_error = error
                break
            waiting.append(threads.submit(work, batch))
            # A few batches wait beside those that are worked on; the others are not read yet.
            while len(waiting) > 2 * workers or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if source_error is not None:
            raise source_error


class _Worker:
    """One process, and the two pipes to it."""

    def __init__(self, function: str, settings: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path), function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD},
            # A Ctrl-C is for the process that shares out the work.
            process_group=0,
        )
        self.settings: Any = settings

    def ask(self, batch: Any) -> Any:
        """The result of one batch. Raises the TuluError that the function raised."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            if self.settings is not None:
                _send(self.process.stdin, self.settings)
                self.settings = None
            _send(self.process.stdin, batch)
            kind, value = _receive(self.process.stdout)
        except (EOFError, BrokenPipeError, ValueError) as error:
            code = self.process.poll()
            raise DataError(
                f"a process that tokenises rows died (exit code {code}); the machine may have run out of memory: free some, "
                "or allow fewer cores (taskset), and run the same command again"
            ) from error
        if kind == "error":
            raise value
        if kind == "bug":
            raise RuntimeError(f"in a process that tokenises rows:\n{value}")
        return value

    def close(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def serve(name: str) -> None:
    """The program of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    # What libraries print must not get between the answers.
    os.dup2(2, 1)
    module, _, attribute = name.rpartition(".")
    function: Callable[[Any, Any], Any] = getattr(import_module(module), attribute)
    with suppress(EOFError, BrokenPipeError):
        settings = _receive(sys.stdin.buffer)
        while True:
            batch = _receive(sys.stdin.buffer)
            _send(answers, _answer(function, settings, batch))


def _answer(function: Callable[[Any, Any], Any], settings: Any, batch: Any) -> tuple[str, Any]:
    try:
        return "value", function(settings, batch)
    except TuluError as error:
        return "error", plain_error(error)
    except Exception:  # noqa: BLE001 -- it is raised again where the answer is read
        return "bug", traceback.format_exc()


def plain_error(error: TuluError) -> TuluError:
    """The same message in a class of tulu/errors.py, which another process can unpickle whatever its own class takes."""
    plain = next(kind for kind in type(error).__mro__ if kind.__module__ == TuluError.__module__)
    same: TuluError = plain(str(error))
    return same


def _send(stream: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(_HEADER.pack(len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """The next message. Raises EOFError where the other side is gone."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    (length,) = _HEADER.unpack(header)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def in_batches(items: Iterable[Any], size: int) -> Iterator[Sequence[Any]]:
    """Lists of so many items; the last may be shorter. What stood before an error of the items is yielded first."""
    batch: list[Any] = []
    stream = iter(items)
    while True:
        try:
            batch.append(next(stream))
        except StopIteration:
            break
        except TuluError:
            if batch:
                yield batch
            raise
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
