"""Tables as sequences of rows, converted a thousand at a time: Parquet, Arrow, and what the datasets library loads."""

from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from tulu.data.lazy import LazySequence
from tulu.errors import DataError

TableRows = LazySequence[dict[str, Any]]
"""The rows of a table, each as its columns."""
_CHUNK = 1000
"""Rows of a table that are converted at once."""


def mapped(path: Path) -> Any:
    """A file's content as a pyarrow buffer that is mapped into memory, so that only what is read of it is loaded."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as file:
        return file.read_buffer()


def parquet_rows(content: Any, name: str) -> TableRows:
    """Rows of a Parquet file, of which one row group is loaded at a time: as many rows as its writer put together."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken(name, "Parquet", error) from None
    ends = list(accumulate(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)))

    @lru_cache(maxsize=1)
    def group(number: int) -> Any:
        try:
            return file.read_row_group(number)
        except (pyarrow.ArrowException, OSError) as error:
            raise _broken(name, "Parquet", error) from None

    def fetch(start: int, end: int) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while start < end:
            number = bisect_right(ends, start)
            begin = ends[number - 1] if number else 0
            taken = group(number).slice(start - begin, end - start).to_pylist()
            rows += taken
            start += len(taken)
        return rows

    return _chunked(file.metadata.num_rows, fetch)


def arrow_rows(content: Any, name: str) -> TableRows:
    """Rows of an Arrow file, or of an Arrow stream, which datasets writes."""
    import pyarrow

    # A file begins with its magic bytes; streams have none.
    open_arrow = pyarrow.ipc.open_file if bytes(content[:6]) == b"ARROW1" else pyarrow.ipc.open_stream
    try:
        table = open_arrow(pyarrow.BufferReader(content)).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise _broken(name, "Arrow", error) from None
    return _chunked(table.num_rows, lambda start, end: table.slice(start, end - start).to_pylist())


def dataset_rows(dataset: Any) -> TableRows:
    """Rows of a data set of the datasets library."""

    def fetch(start: int, end: int) -> list[dict[str, Any]]:
        columns = dataset[start:end]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    return _chunked(len(dataset), fetch)


def _broken(name: str, kind: str, error: Exception) -> DataError:
    return DataError(f"{name}: broken {kind} file ({error}); fetch it again")


def _chunked(length: int, fetch: Callable[[int, int], list[dict[str, Any]]]) -> TableRows:
    @lru_cache(maxsize=2)
    def chunk(number: int) -> list[dict[str, Any]]:
        return fetch(number * _CHUNK, min(length, (number + 1) * _CHUNK))

    return TableRows(length, lambda index: chunk(index // _CHUNK)[index % _CHUNK])
