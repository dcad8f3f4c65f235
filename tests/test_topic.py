"""A Kafka topic as a source: read as it is, followed message by message, each scored once, whatever is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from confluent_kafka import Producer

from benchmarks.soak import Site, draw
from detector.errors import SettingError, SourceError
from pipelines.config import load_config
from pipelines.config.topics import TopicSection
from pipelines.ingest.topic import FollowedTopic, shared
from pipelines.scoring import replay
from pipelines.scoring.unusable import report_files
from pipelines.sources import open_source
from pipelines.sources import topic as reading
from pipelines.sources.topic import Topic, TopicReader
from pipelines.store.alert_tables import Alert
from tests.service_sites import context, opened, score

NOW = datetime.now(UTC)


class Broker:
    """librdkafka's own mock cluster, and what produces to it."""

    def __init__(self) -> None:
        self.producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none"}, logger=reading._Quiet())
        brokers = self.producer.list_topics(timeout=10).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def send(self, topic: str, *contents: bytes | str | None, partition: int = 0) -> None:
        """Messages as they are."""
        for content in contents:
            self.producer.produce(topic, value=content, partition=partition)
        assert self.producer.flush(10) == 0

    def send_rows(self, topic: str, frame: pd.DataFrame) -> None:
        """Rows as JSON objects, in turn to two partitions."""
        for at, line in enumerate(frame.to_json(orient="records", lines=True, date_format="iso").splitlines()):
            self.producer.produce(topic, value=line, partition=at % 2)
        assert self.producer.flush(10) == 0


@pytest.fixture(scope="module")
def broker() -> Broker:
    return Broker()


@pytest.fixture
def site(broker: Broker, tiny_bundle: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """A project whose source is a topic of the test's own name; it has no messages yet."""
    found = Site(tmp_path / "site", tiny_bundle, "files to files")
    follow(found, broker, name_of(request))
    return found


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return name_of(request)


def name_of(request: pytest.FixtureRequest) -> str:
    return "".join(letter for letter in request.node.name if letter.isalnum())


def follow(site: Site, broker: Broker, topic: str, **service: Any) -> None:
    file = site.folder / "detector.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["source"] = {"topic": {"name": topic, "servers": broker.servers}}
    settings["service"] |= service
    file.write_text(yaml.safe_dump(settings))


def keys(site: Site) -> list[int]:
    """The keys that have scores, each as often as it has them."""
    return sorted(site.scored().elements())


# Followed -------------------------------------------------------------------------------------------------------------


def test_each_message_is_scored_once(site: Site, broker: Broker, name: str) -> None:
    """What is there, then what has come since, of all partitions; a run without news scores nothing."""
    broker.send_rows(name, draw(40, first=0, seed=0))
    assert score(site).rows == 40

    broker.send_rows(name, draw(11, first=40, seed=1))
    assert score(site).rows == 11
    assert score(site).outcome == "skipped"

    assert keys(site) == list(range(51))


def test_scores_are_those_of_a_file(site: Site, broker: Broker, name: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """The same rows have the same risk, whichever way they come."""
    rows = draw(60, first=0, seed=3)
    broker.send_rows(name, rows)
    score(site)
    beside = Site(tmp_path / "beside", tiny_bundle, "files to files")
    rows.to_parquet(beside.input / "rows.parquet")
    os.utime(beside.input / "rows.parquet", (0, 0))
    score(beside)

    ours, wanted = (
        pd.concat([pd.read_parquet(file) for file in (each.folder / "scores").glob("*.parquet")])
        .astype({"id": "int64"})
        .set_index("id")["risk"]
        .sort_index()
        for each in (site, beside)
    )

    pd.testing.assert_series_equal(ours, wanted, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["score.looked", "landing.write", "landing.rename", "landing.renamed"])
def test_a_kill_loses_and_doubles_nothing(site: Site, broker: Broker, name: str, fault: str) -> None:
    """The offsets move with the scores: whenever the process is killed, the next run scores each message once."""
    broker.send_rows(name, draw(30, first=0, seed=0))
    program = "import sys; from tests.test_topic import at, score; score(at(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", program, site.folder],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"DETECTOR_FAULT": f"{fault}:1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr.decode()

    broker.send_rows(name, draw(10, first=30, seed=1))
    score(site)
    score(site)

    assert keys(site) == list(range(40))


def at(folder: str) -> Site:
    """A site that is there already."""
    found = Site.__new__(Site)
    found.folder = Path(folder)
    return found


def test_batches_take_from_all_partitions(site: Site, broker: Broker, name: str) -> None:
    """A batch is bounded, and no partition waits for another."""
    follow(site, broker, name, batch_rows=10)
    broker.send_rows(name, draw(40, first=0, seed=0))

    with opened(site) as store:
        scorer = context(site, store)
        from pipelines.ingest.followed import open_followed
        from pipelines.scoring.load import load_scorer

        followed = open_followed(scorer.config, store, load_scorer(scorer.config, scorer.cache).schema)
        proposal = followed.propose(NOW)
        lag = followed.lag(datetime.now(UTC) + timedelta(minutes=1))

    assert proposal is not None
    assert proposal.window["offsets"] == {"0": [0, 5], "1": [0, 5]}
    assert lag.waiting == 40
    assert 30 < lag.seconds < 600


def test_what_is_no_event_is_quarantined(site: Site, broker: Broker, name: str) -> None:
    """A message that is not JSON, or no object, or has no key; the others are scored."""
    broker.send_rows(name, draw(5, first=0, seed=0))
    broker.send(name, "not json", "[1, 2]", None, json.dumps({"amount": 3}), json.dumps({"id": 9, "at": "2026-01-01"}))

    score(site)

    files = list((site.folder).glob("**/batch-*.csv"))
    reasons = " ".join(pd.concat([pd.read_csv(file) for file in files])["reason"])
    assert keys(site) == [0, 1, 2, 3, 4, 9]
    for said in ("not JSON", "expected a JSON object, received list", "no content", "the key is missing"):
        assert said in reasons
    assert "partition 0, offset 3: not JSON" in reasons


def test_quarantined_messages_are_found_again(site: Site, broker: Broker, name: str) -> None:
    """A message that is an event, but one that cannot be used, is named by its partition and offset, too."""
    broker.send_rows(name, draw(5, first=0, seed=0))
    broker.send(name, "not json", '{"amount": 3}')

    score(site)

    (file,) = site.folder.glob("**/batch-*.csv")
    missing = pd.read_csv(file).set_index("reason").filter(like="the key is missing", axis="index")
    assert missing[["file", "row"]].to_numpy().tolist() == [[f"{name}[0]", 4]]


def test_half_a_pair_of_surrogates_stops_nothing(site: Site, broker: Broker, name: str) -> None:
    """JSON can escape what no text can hold: the message is scored, wherever in it that stands, and so are others."""
    event = {"id": 1, "at": "2026-01-01", "amount": 40, "fee": 1}
    broker.send(
        name, json.dumps(event | {"note": "\ud800", "\udc00": 1}), json.dumps(event | {"id": 2, "fee": "\udfff"})
    )

    found = score(site)

    assert (found.rows, keys(site)) == (2, [1])
    assert "'\ufffd' is not a number" in next(site.folder.glob("**/batch-*.csv")).read_text()
    assert open_source(load_config(site.folder).source).read()["\ufffd"].dropna().tolist() == ["1"]


def test_new_starts_after_what_is_there(site: Site, broker: Broker, name: str) -> None:
    """``service.start: new`` leaves out what is there at the first look; it cannot be made up for, and that is said."""
    follow(site, broker, name, start="new")
    broker.send_rows(name, draw(20, first=0, seed=0))
    assert score(site).outcome == "skipped"
    broker.send_rows(name, draw(4, first=20, seed=1))
    score(site)

    assert keys(site) == [20, 21, 22, 23]
    with opened(site) as store, pytest.raises(SettingError, match="cannot be made up for"):
        replay.backfill(context(site, store, arguments={"actor": "ann", "reason": "asked"}))


def test_replay_reads_the_messages_again(site: Site, broker: Broker, name: str) -> None:
    """The same offsets, and no score more than before."""
    broker.send_rows(name, draw(20, first=0, seed=0))
    score(site)
    with opened(site) as store:
        found = replay.replay(context(site, store, arguments={"actor": "ann", "reason": "asked"}))

    assert found.rows == 20
    assert keys(site) == list(range(20))


def test_another_topic_of_the_same_name_is_refused(site: Site, broker: Broker, name: str) -> None:
    """A topic that is shorter than what was scored, or another topic under the same name of a project."""
    broker.send_rows(name, draw(6, first=0, seed=0))
    score(site)
    with opened(site) as store:
        followed = followed_of(site, store, broker, name)
        followed.topic.there = lambda: {0: (0, 1), 1: (0, 1)}  # type: ignore[method-assign]
        with pytest.raises(SourceError, match="ends at offset 1, and 3 was scored already"):
            followed.propose(NOW)

        with pytest.raises(SettingError, match="was scored from .* so far, and its source is topic other"):
            followed_of(site, store, broker, "other")._position()


def test_topic_that_was_made_anew_is_refused(site: Site, broker: Broker, name: str) -> None:
    """However many messages the new one has: those at the first offsets would never be scored."""
    broker.send_rows(name, draw(6, first=0, seed=0))
    score(site)
    broker.send_rows(name, draw(4, first=6, seed=1))
    anew = name + "anew"
    broker.send_rows(anew, draw(20, first=100, seed=2))
    with opened(site) as store:
        followed = followed_of(site, store, broker, name)
        proposal = followed.propose(NOW)
        assert proposal is not None
        assert followed.is_intact(proposal.window)
        followed.topic.messages = Topic(anew, servers=broker.servers, client={}).messages  # type: ignore[method-assign]

        assert not followed.is_intact(proposal.window)
        with pytest.raises(SourceError, match="was deleted and made anew since .* Give `name` another value"):
            followed.propose(NOW)


@pytest.mark.parametrize(("end", "wanted"), [(3, {"0": [2, 3], "1": [0, 3]}), (2, {"1": [0, 2]})])
def test_what_retention_removed_is_told(
    site: Site, broker: Broker, name: str, end: int, wanted: dict[str, list[int]]
) -> None:
    """Messages that are gone before they were scored are named, once; those that are there are scored."""
    broker.send_rows(name, draw(6, first=0, seed=0))
    with opened(site) as store:
        followed = followed_of(site, store, broker, name)
        followed._move({0: 0, 1: 0}, NOW)
        followed.topic.there = lambda: {0: (2, end), 1: (0, end)}  # type: ignore[method-assign]
        proposal = followed.propose(NOW)
        assert "2 messages, from offset 0, were removed by the topic's retention" in followed.notices[0]
        followed.propose(NOW)

    assert (proposal and proposal.window["offsets"]) == wanted
    assert followed.notices == []


def test_lost_messages_are_reported_as_such(site: Site, broker: Broker, name: str) -> None:
    """The alert of the service speaks of messages and of the topic's retention, and not of files."""
    with opened(site) as store:
        report_files(context(site, store), ["partition 0: 2 messages were removed"], has_scored=True)
        with store.read() as session:
            told = session.scalars(sa.select(Alert)).one().facts["service"]

    assert told["text"] == "soak has lost messages before it could score them: partition 0: 2 messages were removed"
    assert "retention.ms" in told["todo"]


def test_retention_goes_on_while_the_past_is_read(site: Site, broker: Broker, name: str) -> None:
    """What features are measured from again is what is left of it."""
    broker.send_rows(name, draw(8, first=0, seed=0))
    score(site)
    with opened(site) as store:
        followed = followed_of(site, store, broker, name)
        there = followed.topic.there()
        followed.topic.there = lambda: there  # type: ignore[method-assign]
        followed.topic._there = lambda _: {0: (1, 4), 1: (3, 4)}  # type: ignore[method-assign]

        assert sum(len(frame) for frame in followed.passed()) == 4


def followed_of(site: Site, store: Any, broker: Broker, name: str) -> FollowedTopic:
    from pipelines.scoring.load import load_scorer

    schema = load_scorer(load_config(site.folder), context(site, store).cache).schema
    topic = Topic(name, servers=broker.servers, client={})
    return FollowedTopic(store, name="soak", topic=topic, schema=schema, starts_new=False, batch_rows=100)


def test_messages_are_shared_among_partitions() -> None:
    """None is left out while the batch has room, and none gets more than it has."""
    assert shared({0: (0, 3), 1: (0, 100), 2: (9, 9)}, 50) == {0: (0, 3), 1: (0, 47)}
    assert shared({0: (0, 5), 1: (0, 5)}, 1) == {0: (0, 1)}
    assert shared({}, 5) == {}


# Read -----------------------------------------------------------------------------------------------------------------


def test_a_topic_is_read_as_a_table(site: Site, broker: Broker, name: str) -> None:
    """What is there now, with the names of all fields; numbers are as they were written."""
    broker.send(name, '{"id": 1, "amount": 12.50}', '{"id": 2, "amount": null, "more": {"a": [1, "x"]}}')
    source = open_source(load_config(site.folder).source)

    frame = source.read()

    assert source.columns() == ["id", "amount", "more.a"]
    assert frame["amount"].tolist()[0] == "12.50"
    assert frame["amount"].isna().tolist() == [False, True]
    assert frame["more.a"].tolist()[1] == '["1", "x"]'
    assert source.estimate() == 2


def test_fields_that_producers_added_are_columns(broker: Broker, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest messages are looked at, too; a field of theirs would not be learnt, and nobody would hear of it."""
    monkeypatch.setattr(reading, "LOOKED_AT", 2)
    broker.send(name, *['{"id": 1}'] * 6, '{"id": 7, "channel": "web"}', '{"id": 8}')
    broker.send(name, '{"id": 9, "few": 1}', partition=1)

    columns = TopicReader(Topic(name, servers=broker.servers, client={})).columns()

    assert columns == ["id", "few", "channel"]


def test_only_the_part_that_was_asked_for_is_read(broker: Broker, name: str) -> None:
    """Between two offsets, the second excluded."""
    broker.send(name, *(json.dumps({"id": number}) for number in range(10)))
    topic = Topic(name, servers=broker.servers, client={})

    tables = list(TopicReader(topic, {0: (3, 6)}).tables(["id"], size=100))

    assert tables[0].column("id").to_pylist() == ["3", "4", "5"]


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [((), "holds no messages"), (("[1]", "text"), "No message of .* is a JSON object")],
)
def test_a_topic_without_events_is_an_error(
    broker: Broker, name: str, contents: tuple[str, ...], complaint: str
) -> None:
    """There is nothing to learn columns from."""
    broker.send(name, *contents)
    broker.producer.list_topics(name, timeout=10)  # has the mock cluster make the topic

    with pytest.raises(SourceError, match=complaint):
        TopicReader(Topic(name, servers=broker.servers, client={})).columns()


def test_what_is_not_there_is_named(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such topic; no such broker; a setting that librdkafka does not have; one that is ours."""
    with pytest.raises(SourceError, match=r"There is no topic nowhere at .* correct `source.topic.name`"):
        Topic("nowhere", servers=broker.servers, client={"allow.auto.create.topics": "false"}).there()
    monkeypatch.setattr(reading, "PATIENCE", 1.5)
    with pytest.raises(SourceError, match="No broker of topic any at 127.0.0.1:1 answers"):
        Topic("any", servers="127.0.0.1:1", client={}).there()
    with pytest.raises(SettingError, match=r"`source.topic.client` .*cannot be used: No such .*no.such"):
        Topic("any", servers=broker.servers, client={"no.such": "1"}).there()
    with pytest.raises(SettingError, match=r"may not set 'group.id'"):
        Topic("any", servers=broker.servers, client={"group.id": "mine"})


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        ({"security.protocol": "SSL"}, r"ssl:.*"),
        ({"bootstrap.servers": "127.0.0.1:1"}, r"Connection refused\. Check"),
    ],
)
def test_why_no_broker_answers_is_said(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, client: dict[str, str], reason: str
) -> None:
    """Not only that the connection failed: with wrong settings of TLS the network is not at fault."""
    monkeypatch.setattr(reading, "PATIENCE", 3.0)
    given = dict(client)
    servers = given.pop("bootstrap.servers", broker.servers)

    with pytest.raises(SourceError, match=rf"answers: .*{reason}"):
        Topic("any", servers=servers, client=given).there()


def test_messages_that_are_gone_are_an_error(broker: Broker, name: str) -> None:
    """A window that the topic no longer keeps cannot be read again."""
    broker.send(name, "{}")
    topic = Topic(name, servers=broker.servers, client={})
    topic._there = lambda _: {0: (5, 9)}  # type: ignore[method-assign]

    with pytest.raises(SourceError, match="Messages 0 to 2 of partition 0 .* are gone"):
        list(topic.messages({0: (0, 3)}))


def test_retention_goes_on_while_a_topic_is_read(broker: Broker, name: str) -> None:
    """A training takes minutes, and reads the topic twice: what is removed meanwhile is left out of it."""
    broker.send(name, *(json.dumps({"id": number}) for number in range(10)))
    topic = Topic(name, servers=broker.servers, client={})
    reader = TopicReader(topic)
    topic._there = lambda _: {0: (4, 10)}  # type: ignore[method-assign]

    assert reader.columns() == ["id"]
    (table,) = reader.tables(["id"], size=100)
    assert table.column("id").to_pylist() == [str(number) for number in range(4, 10)]


# Settings -------------------------------------------------------------------------------------------------------------


def test_secrets_are_kept_out_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password stands in a variable, is never shown, and reaches the client."""
    with pytest.raises(ValueError, match="sasl.password is a secret. Write it under `secrets`"):
        TopicSection(name="a", servers="b:1", client={"sasl.password": "hidden"})
    monkeypatch.setenv("KAFKA_PASSWORD", "hidden")
    section = TopicSection.model_validate(
        {
            "name": "a",
            "servers": "b:1",
            "client": {"enable.ssl.certificate.verification": True},
            "secrets": {"sasl.password": "${KAFKA_PASSWORD}"},
        }
    )

    assert section.settings == {"enable.ssl.certificate.verification": "true", "sasl.password": "hidden"}
    assert "hidden" not in repr(section)
    assert "hidden" not in section.model_dump_json()


@pytest.mark.parametrize("source", [{}, {"path": "a.csv", "topic": {"name": "a", "servers": "b:1"}}])
def test_rows_come_from_one_place(source: dict[str, Any], tmp_path: Path) -> None:
    """Files, a database or a topic."""
    file = tmp_path / "detector.yaml"
    file.write_text(yaml.safe_dump({"name": "a", "source": source, "output": {"path": "o.parquet"}}))

    with pytest.raises(SettingError, match=r"Give one of the three"):
        load_config(file)
