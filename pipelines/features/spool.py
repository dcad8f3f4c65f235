"""Build a past from all rows there are, of any number and in any order, in parts that fit memory.

What each row adds to the past of an entity is written into a spool, by bucket of its entity; a bucket then holds all
there is of its entities, and is sorted by (time, key) and cut as a past is. So nothing depends on the order in which
rows come but two things, which their *positions* say: of rows with one key the first counts, and without keys rows of
one moment stay in the order they came. Positions are given by whoever reads the source, so parts of it may be spooled
in any order and by several processes, and so may buckets be made: the past is the same to the last bit as that of one
``History.learn`` of all rows, those that no feature looks back to left out.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from detector.arrays import Flags, Integers, Times
from detector.features import integers
from detector.features.entities import BESIDE, encoded, key_of, packed_keys
from detector.features.entity_store import By
from detector.features.events import by_entity
from detector.features.feature_set import FeatureSet
from detector.features.join import entity_names, stored_from
from detector.features.layout import Layout
from detector.features.spill import sorted_file

BITS = 8
BUCKETS = 1 << BITS
"""Fewer, and a bucket takes more memory; more, and its parts of the spool become too small to read well."""


@dataclass(frozen=True)
class Spool:
    """What rows add to a past, by bucket; one folder that several processes write into and read from.

    - ``lateness``: of the past, in microseconds.
    """

    folder: Path
    features: FeatureSet
    lateness: int

    def add(self, rows: pd.DataFrame, first: int) -> int | None:
        """Spool some rows; when the latest was.

        - ``rows``: as for ``FeatureSet.compute``; none without a key counts, where there are keys.
        - ``first``: the position of the first; those of the others follow.
        """
        position = first + np.arange(len(rows))
        if self.features.key is not None:
            given = rows[self.features.key].notna().to_numpy()
            rows, position = rows[given], position[given]
        if rows.empty:
            return None
        self.features.check(rows)
        read = self.features.read(rows, lasting=True)
        keys = {} if self.features.key is None else {"key": _whole(pa.array(rows[self.features.key], from_pandas=True))}
        for number, (by, layout) in enumerate(self.layouts.items()):
            codes = integers.groups(rows, by)
            known = np.flatnonzero(codes >= 0)
            if not len(known):
                continue
            representative = np.zeros(int(codes.max()) + 1, dtype=np.intp)
            representative[codes[known]] = known
            names = [encoded(name) for name in entity_names(rows, by, representative)]
            bucket = np.fromiter((zlib.crc32(name) >> (32 - BITS) for name in names), np.int64, len(names))
            order = known[np.argsort(bucket[codes[known]], kind="stable")]
            columns = {name: values[order] for name, values in read.columns.items() if name in layout.keys}
            packed = pa.py_buffer(layout.pack({"time": read.time[order], **columns}))
            event = pa.FixedSizeBinaryArray.from_buffers(pa.binary(layout.size), len(order), [None, packed])
            self._write(
                f"{number}-{first:015d}",
                bucket[codes[order]],
                {
                    "name": pa.array(names, pa.binary()).take(pa.array(codes[order])),
                    "event": event,
                    "position": pa.array(position[order]),
                    **{name: column.take(pa.array(order)) for name, column in keys.items()},
                },
            )
        if keys:
            hashed = pd.util.hash_array(rows[self.features.key].to_numpy(dtype=object), categorize=False)
            bucket = (hashed % np.uint64(BUCKETS)).astype(np.int64)
            order = np.argsort(bucket, kind="stable")
            every = {**keys, "position": pa.array(position), "time": pa.array(read.time)}
            taken = {name: column.take(pa.array(order)) for name, column in every.items()}
            self._write(f"keys-{first:015d}", bucket[order], taken)
        return int(read.time.max())

    @property
    def layouts(self) -> dict[By, Layout]:
        """How events are kept, by each way to group rows."""
        return {by: Layout.of(measured) for by, measured in self.features.groups.items()}

    def repeated(self, bucket: int) -> tuple[Integers, int | None]:
        """The positions of rows whose key came before, in one bucket of keys, and when the latest of the others was."""
        table = self._read("keys", bucket)
        if table is None:
            return np.zeros(0, dtype=np.int64), None
        position = table.column("position").to_numpy()
        order = np.argsort(position)
        again = table.column("key").to_pandas().iloc[order].duplicated().to_numpy()
        time = table.column("time").to_numpy()[order]
        return position[order][again], int(time[~again].max())

    def make(self, number: int, bucket: int, *, latest: int, again: Integers) -> tuple[list[Path], int]:
        """Write what is kept of one bucket of entities, as sorted files whose keys lie apart from those of others.

        Returns the files, and how many bytes of memory what they hold would take, about.

        - ``number``: of the way to group rows.
        - ``again``: the sorted positions of rows that do not count.
        """
        table = self._read(str(number), bucket)
        if table is None:
            return [], 0
        layout = list(self.layouts.values())[number]
        events = np.frombuffer(table.column("event").combine_chunks().buffers()[1], layout.dtype, len(table))
        counts_for = self._young(events["time"], latest) & ~_among(table.column("position").to_numpy(), again)
        if not counts_for.all():
            table, events = table.filter(pa.array(counts_for)), events[counts_for]
        if not len(events):
            return [], 0
        key = None if self.features.key is None else table.column("key").to_pandas()
        place = np.argsort(table.column("position").to_numpy(), kind="stable")
        time = events["time"]
        order = place[integers.ordered(time[place], None if key is None else key.iloc[place])]
        entity = table.column("name").combine_chunks().dictionary_encode()
        names = entity.dictionary.to_pylist()
        order, counts = by_entity(entity.indices.to_numpy().astype(np.int64), order)
        open_from = latest - self.lateness
        ends = np.cumsum(counts)
        begins = ends - counts + stored_from(time[order], counts, layout, open_from, self.features.most_events)
        packed, size = events[order].tobytes(), layout.size
        cuts = zip(names, (begins * size).tolist(), (ends * size).tolist(), strict=True)
        kept = {key_of(2 * number, name): packed[begin:end] for name, begin, end in cuts}
        files = [sorted_file(kept, self.folder / f"{number}-{bucket:03d}.sst")]
        held = BESIDE * len(kept) + sum(map(len, kept.values()))
        still = np.flatnonzero(time[order] >= open_from)
        if key is None or not len(still):
            return files, held
        tails: dict[bytes, list[object]] = {}
        whose = np.repeat(np.arange(len(names)), counts)[still]
        for one, known in zip(whose.tolist(), key.iloc[order[still]].tolist(), strict=True):
            tails.setdefault(key_of(2 * number + 1, names[one]), []).append(known)
        open_keys = {name: packed_keys(tuple(keys)) for name, keys in tails.items()}
        files.append(sorted_file(open_keys, self.folder / f"{number}-{bucket:03d}-keys.sst"))
        return files, held

    def _young(self, time: Times, latest: int) -> Flags:
        return np.asarray(time > latest - self.features.reach - self.lateness)

    def _write(self, name: str, bucket: Integers, columns: dict[str, pa.Array]) -> None:
        """One file of a batch a bucket; rows are sorted by bucket."""
        batch = pa.RecordBatch.from_pydict(columns)
        ends = np.searchsorted(bucket, np.arange(BUCKETS + 1))
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_file(self.folder / f"{name}.arrow", batch.schema, options=options) as file:
            for begin, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
                file.write_batch(batch.slice(begin, end - begin))

    def _read(self, name: str, bucket: int) -> pa.Table | None:
        batches = []
        for path in sorted(self.folder.glob(f"{name}-*.arrow")):
            with pa.OSFile(str(path)) as file:
                batches.append(pa.ipc.open_file(file).get_batch(bucket))
        filled = [batch for batch in batches if len(batch)]
        return pa.Table.from_batches(filled) if filled else None


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _among(positions: Integers, some: Integers) -> Flags:
    """Which positions are among some that are sorted."""
    if not len(some):
        return np.zeros(len(positions), dtype=bool)
    at = np.minimum(np.searchsorted(some, positions), len(some) - 1)
    return np.asarray(some[at] == positions)
