"""Exports of the log and of read models: rows one by one, in constant memory, in three formats."""

from app.exports.formats import FORMATS, Format, NoParquet, RowWriter, writer
from app.exports.rows import LOG_COLUMNS, flat_event, model_rows, of_log

__all__ = [
    "FORMATS",
    "LOG_COLUMNS",
    "Format",
    "NoParquet",
    "RowWriter",
    "flat_event",
    "model_rows",
    "of_log",
    "writer",
]
