"""A Kafka topic of JSON objects as a table: the messages that are there between given offsets."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from detector.errors import MissingExtraError, SettingError, SourceError
from pipelines.config.topics import TopicSection
from pipelines.sources.json_rows import as_text, row_of

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message

Offsets = dict[int, tuple[int, int]]
"""By partition, the first offset and the one after the last."""

PATIENCE = 30.0
"""Seconds without a message after which a broker is said not to answer."""
AT_ONCE = 1_000
LOOKED_AT = 1_000
"""Messages at each end of a partition that are read to learn the names of columns."""

_OURS = ("bootstrap.servers", "group.id", "enable.auto.commit", "auto.offset.reset", "enable.partition.eof")


class Topic:
    """What a broker knows of one topic. Each question opens a connection of its own, and commits nothing.

    - ``servers``: host:port of some brokers, separated by commas.
    - ``client``: Settings of librdkafka, such as ``security.protocol``.

    Raises ``SettingError`` if ``client`` has a setting that is ours to make; ``MissingExtraError`` if confluent-kafka
    is not installed.
    """

    def __init__(self, name: str, *, servers: str, client: Mapping[str, str]) -> None:
        if taken := sorted(set(client) & set(_OURS)):
            raise SettingError(
                f"`source.topic.client` may not set {taken[0]!r}: offsets are kept with the scores. Remove it."
            )
        try:
            import confluent_kafka
        except ImportError as error:
            raise MissingExtraError(
                "Reading a Kafka topic needs confluent-kafka, which is not installed. "
                "Install it with: pip install 'anomaly-detector[stream]'"
            ) from error
        self.name = name
        self.servers = servers
        self._kafka = confluent_kafka
        self._trouble = ""
        """What the connection in hand suffered last."""
        self._settings = dict(client) | {
            "bootstrap.servers": servers,
            "group.id": "detector",  # the library wants one; nothing is committed to it
            "enable.auto.commit": "false",
            "auto.offset.reset": "error",
            "enable.partition.eof": "true",
            "error_cb": self._note,
        }

    def describe(self) -> str:
        """The topic and the brokers, without secrets."""
        return f"topic {self.name} at {self.servers}"

    def there(self) -> Offsets:
        """By partition, the oldest message's offset and the next one's.

        Raises ``SourceError`` if no broker answers, or there is no such topic.
        """
        with self._consumer() as consumer:
            return self._there(consumer)

    def messages(self, offsets: Mapping[int, tuple[int, int]], *, may_be_gone: bool = False) -> Iterator[Message]:
        """The messages between offsets, partition by partition, in order.

        - ``may_be_gone``: whether those that the topic's retention removed are left out; else they are an error.

        Raises ``SourceError`` if some were removed, or no broker answers for a while.
        """
        with self._consumer() as consumer:
            there = self._there(consumer)
            for partition, (wanted, end) in sorted(offsets.items()):
                oldest = there.get(partition, (end, end))[0]
                first = max(wanted, oldest) if may_be_gone else wanted
                if first >= end:
                    continue
                if oldest > first:
                    raise SourceError(
                        f"Messages {first:,} to {min(oldest, end) - 1:,} of partition {partition} of {self.describe()} "
                        f"are gone: the topic keeps no older ones than {oldest:,}. Have it keep them for longer."
                    )
                yield from self._of_partition(consumer, partition, first, end)

    def _of_partition(self, consumer: Consumer, partition: int, first: int, end: int) -> Iterator[Message]:
        consumer.assign([self._kafka.TopicPartition(self.name, partition, first)])
        heard, wanted = time.monotonic(), first
        while True:
            found = consumer.consume(min(AT_ONCE, end - wanted), timeout=1.0)  # it waits until there are so many
            if not found and time.monotonic() - heard > PATIENCE:
                why = f": {self._trouble}" if self._trouble else ""
                raise SourceError(
                    f"No broker of {self.describe()} has answered for {PATIENCE:.0f} s{why}. Is it running?"
                )
            for message in found:
                heard, offset = time.monotonic(), int(message.offset() or 0)
                if (error := message.error()) is not None:
                    if error.code() != self._kafka.KafkaError._PARTITION_EOF:
                        raise SourceError(f"{self.describe()} cannot be read: {error.str()}.")
                    if offset >= end:  # what is left are marks of transactions, or was compacted away
                        return
                    continue
                if offset < end:
                    yield message
                if offset >= end - 1:
                    return
                wanted = offset + 1

    def _there(self, consumer: Consumer) -> Offsets:
        try:
            topic = consumer.list_topics(self.name, timeout=PATIENCE / 3).topics[self.name]
            if topic.error is not None:
                raise SourceError(
                    f"There is no {self.describe()}: {topic.error.str()}. Create it, or correct `source.topic.name`."
                )
            return {
                partition: consumer.get_watermark_offsets(
                    self._kafka.TopicPartition(self.name, partition), timeout=PATIENCE / 3
                )
                for partition in sorted(topic.partitions)
            }
        except self._kafka.KafkaException as error:
            consumer.poll(0)  # has what went wrong with the connection noted
            raise SourceError(
                f"No broker of {self.describe()} answers: {self._trouble or error.args[0].str()}. "
                f"Check `source.topic` and the network."
            ) from error

    def _note(self, error: KafkaError) -> None:
        """Keep why a connection failed; that all of them did says less."""
        if error.code() != self._kafka.KafkaError._ALL_BROKERS_DOWN:
            self._trouble = re.sub(r" \(after .*", "", error.str(), flags=re.DOTALL)

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        self._trouble = ""
        try:
            consumer = self._kafka.Consumer(self._settings, logger=_Quiet())
        except (self._kafka.KafkaException, TypeError) as error:
            what = error.args[0].str() if isinstance(error, self._kafka.KafkaException) else error
            raise SettingError(
                f"`source.topic.client` or its `secrets` cannot be used: {what}. "
                f"The names are those of librdkafka's CONFIGURATION.md."
            ) from error
        try:
            yield consumer
        finally:
            consumer.close()


def topic_of(section: TopicSection) -> Topic:
    """The topic that a configuration names.

    Raises what ``Topic`` does, and ``SettingError`` if a secret is missing.
    """
    return Topic(section.name, servers=section.servers, client=section.settings)


class TopicReader:
    """Messages of a topic as rows of text: a value is read by what its column means, as in a CSV file.

    A field that a message does not have is missing there. The fields of an object within it are
    columns of their own, see ``row_of``; lists are their JSON.

    - ``offsets``: what to read; by default all that is there now, but for what the topic removes meanwhile.

    Raises what ``Topic`` does.
    """

    def __init__(self, topic: Topic, offsets: Offsets | None = None) -> None:
        self.topic = topic
        self.rejected: list[str] = []
        self._offsets = topic.there() if offsets is None else offsets
        self._may_be_gone = offsets is None
        self._columns: list[str] | None = None

    def describe(self) -> str:
        """The topic and the brokers."""
        return self.topic.describe()

    def columns(self) -> list[str]:
        """The names of fields in the first and the last thousand messages of each partition: producers add some."""
        if self._columns is None:
            oldest = {each: (first, min(end, first + LOOKED_AT)) for each, (first, end) in self._offsets.items()}
            newest = {each: (max(oldest[each][1], end - LOOKED_AT), end) for each, (_, end) in self._offsets.items()}
            names: dict[str, None] = {}
            for few in (oldest, newest):
                for message in self.topic.messages(few, may_be_gone=self._may_be_gone):
                    names |= dict.fromkeys(event_of(message)[0] or ())
            self._columns = list(names)
            if not names and self.estimate():
                raise SourceError(f'No message of {self.describe()} is a JSON object, such as {{"amount": 12.5}}.')
            if not names:
                raise SourceError(f"{self.describe()} holds no messages. Check what is to fill it.")
        return self._columns

    def count(self) -> int | None:
        """Unknown before reading: offsets have gaps."""
        return None

    def estimate(self) -> int | None:
        """About how many messages."""
        return sum(max(0, end - first) for first, end in self._offsets.values())

    def tables(self, columns: Sequence[str], *, size: int) -> Iterator[pa.Table]:
        """The rows of all partitions, one after the other."""
        schema = pa.schema([(name, pa.string()) for name in columns])
        held: list[dict[str, str | None]] = []
        for message in self.topic.messages(self._offsets, may_be_gone=self._may_be_gone):
            event, reason = event_of(message)
            if event is None:
                self.rejected.append(reason)
                continue
            held.append({name: as_text(event.get(name)) for name in columns})
            if len(held) >= size:
                yield pa.Table.from_pylist(held, schema)
                held = []
        if held:
            yield pa.Table.from_pylist(held, schema)


def event_of(message: Message) -> tuple[dict[str, Any] | None, str]:
    """A message's JSON object; without one, why there is none, with its place; see ``row_of``.

    What deletes a key of a compacted topic has no content, and is no event either.
    """
    content = message.value()
    event, reason = (None, "no content") if content is None else row_of(content)
    return event, reason and f"partition {message.partition()}, offset {message.offset()}: {reason}"


class _Quiet:
    """The client's own log says again what the errors say."""

    def log(self, *_: object) -> None:
        """Nothing."""
