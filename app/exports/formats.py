"""JSONL, CSV (RFC 4180, UTF-8, with a head) and Parquet, written as the rows come."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Final, Literal, Protocol, get_args

import msgspec

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
Kind = Literal["int", "float", "text"]
Column = tuple[str, Kind]
Row = dict[str, Any]

GROUP: Final = 20_000
"""Rows of a row group: what Parquet keeps in memory."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class NoParquet(Exception):
    """The library that writes Parquet is not installed."""

    def __init__(self) -> None:
        super().__init__("Parquet needs another library: pip install 'hilo[parquet]'")


class RowWriter(Protocol):
    """Takes rows. Nothing is complete before `close`."""

    def write(self, row: Row) -> None:
        """Write a row: its columns' values, by name."""

    def close(self) -> None:
        """Write what is left. The file stays open."""


def writer(format_: Format, out: BinaryIO, columns: Sequence[Column]) -> RowWriter:
    """Return what writes rows of `columns` to `out`. Raises `NoParquet`."""
    match format_:
        case "jsonl":
            return _Lines(out)
        case "csv":
            return _Csv(out, columns)
        case "parquet":
            return _Parquet(out, columns)


class _Lines:
    def __init__(self, out: BinaryIO) -> None:
        self._write = out.write
        self._encode = msgspec.json.Encoder().encode

    def write(self, row: Row) -> None:
        self._write(self._encode(row) + b"\n")

    def close(self) -> None:
        """Nothing is left."""


class _Csv:
    def __init__(self, out: BinaryIO, columns: Sequence[Column]) -> None:
        self._text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=False)
        self._names = [name for name, _ in columns]
        self._csv = csv.writer(self._text)
        self._csv.writerow(self._names)

    def write(self, row: Row) -> None:
        self._csv.writerow([_cell(row.get(name)) for name in self._names])

    def close(self) -> None:
        with suppress(ValueError):  # closed twice
            self._text.flush()
            self._text.detach()


def _cell(value: object) -> object:
    """Return a value as a cell; what a spreadsheet would run as a formula is quoted.

    Names that people give themselves are among the cells.
    """
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


class _Parquet:
    def __init__(self, out: BinaryIO, columns: Sequence[Column]) -> None:
        try:
            import pyarrow as pa  # noqa: PLC0415 - optional
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ImportError:
            raise NoParquet from None
        kinds = {"int": pa.int64(), "float": pa.float64(), "text": pa.string()}
        self._schema = pa.schema([(name, kinds[kind]) for name, kind in columns])
        self._batch = pa.RecordBatch.from_pylist
        self._file = pq.ParquetWriter(out, self._schema, compression="zstd")
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) >= GROUP:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._file.close()

    def _flush(self) -> None:
        self._file.write_batch(self._batch(self._rows, schema=self._schema))
        self._rows = []
