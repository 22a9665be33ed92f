from collections.abc import Iterator, Sequence
from pathlib import Path

from pyarrow import RecordBatch, Schema, Table

class RowGroup:
    num_rows: int
    total_byte_size: int

class Metadata:
    num_rows: int
    def row_group(self, i: int) -> RowGroup: ...

class ParquetFile:
    metadata: Metadata
    schema_arrow: Schema
    num_row_groups: int
    def __init__(self, source: Path, *, buffer_size: int = 0, pre_buffer: bool = False) -> None: ...
    def __enter__(self) -> ParquetFile: ...
    def __exit__(self, *args: object) -> None: ...
    def iter_batches(
        self,
        batch_size: int = 65536,
        row_groups: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        use_threads: bool = True,
    ) -> Iterator[RecordBatch]: ...
    def close(self) -> None: ...

def write_table(table: Table, where: Path, *, row_group_size: int | None = None) -> None: ...
