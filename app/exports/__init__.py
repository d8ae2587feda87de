"""Exports of the log and of read models: rows one by one, in constant memory, in three formats."""

from app.exports.formats import FORMATS, Format, NoParquet, RowWriter, writer
from app.exports.rows import LOG_COLUMNS, flat_event, of_log, table_of, table_rows

__all__ = [
    "FORMATS",
    "LOG_COLUMNS",
    "Format",
    "NoParquet",
    "RowWriter",
    "flat_event",
    "of_log",
    "table_of",
    "table_rows",
    "writer",
]
