"""Folders wherever Spark can write them: this machine, HDFS, object stores. Hadoop's file systems, in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Folders:
    """Paths and addresses, by the file system that each belongs to."""

    def __init__(self, spark: SparkSession) -> None:
        context: Any = spark.sparkContext
        self._path = context._jvm.org.apache.hadoop.fs.Path
        self._settings = context._jsc.hadoopConfiguration()

    def exists(self, place: str) -> bool:
        """Whether there is such a file or folder."""
        path, system = self._at(place)
        return bool(system.exists(path))

    def is_file(self, place: str) -> bool:
        """Whether there is such a file, and it is no folder."""
        path, system = self._at(place)
        return bool(system.exists(path)) and not bool(system.getFileStatus(path).isDirectory())

    def names(self, pattern: str) -> list[str]:
        """The names of the files that a path or a pattern stands for, or of what a folder holds."""
        path, system = self._at(pattern)
        found = system.globStatus(path) or []
        if len(found) == 1 and found[0].isDirectory():
            found = system.listStatus(found[0].getPath())
        return sorted(str(each.getPath().getName()) for each in found)

    def matching(self, pattern: str) -> list[str]:
        """The names of the files and folders that a pattern stands for."""
        path, system = self._at(pattern)
        return sorted(str(each.getPath().getName()) for each in system.globStatus(path) or [])

    def rename(self, source: str, target: str) -> bool:
        """Move a folder to a place where nothing is; whether it went there."""
        path, system = self._at(target)
        system.mkdirs(path.getParent())
        return not bool(system.exists(path)) and bool(system.rename(self._path(source), path))

    def remove(self, place: str) -> None:
        """Delete a file or a folder with all in it, if it is there."""
        path, system = self._at(place)
        system.delete(path, True)

    def write(self, place: str, text: str) -> None:
        """Write a small file, replacing what is there."""
        path, system = self._at(place)
        stream = system.create(path, True)
        try:
            stream.write(bytearray(text.encode()))
        finally:
            stream.close()

    def read(self, place: str) -> str:
        """What stands in a small file; empty if there is none."""
        path, system = self._at(place)
        if not system.exists(path):
            return ""
        stream = system.open(path)
        try:
            return bytes(stream.readAllBytes()).decode()
        finally:
            stream.close()

    def _at(self, place: str) -> tuple[Any, Any]:
        path = self._path(place)
        return path, path.getFileSystem(self._settings)
