"""The job on PyFlink, written as its documentation shows; runs in an environment of its own.

    python flink_job.py datastream|table BROKER TOPIC PANES ALERTS FOLDER JAR

It writes panes of 10 s in event time to one topic, and alerts by a running z-score of each pane's mean latency, with
keyed state, to another. `datastream` aggregates in Python functions, `table` in SQL, which runs in the JVM alone; both
judge in Python. The job is bounded: it ends with the topic.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pyflink.common import Configuration, Duration, Row, SimpleStringSchema, Time, Types, WatermarkStrategy
from pyflink.datastream import (
    AggregateFunction,
    CheckpointingMode,
    DataStream,
    KeyedProcessFunction,
    ProcessWindowFunction,
    RuntimeContext,
    StreamExecutionEnvironment,
)
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.datastream.window import TimeWindow, TumblingEventTimeWindows
from pyflink.table import StreamTableEnvironment

WARM_PANES = 5
LIMIT = 3.0
TRANSACTION_TIMEOUT_MS = "600000"  # a broker does not allow Flink's default of an hour

PANE = Types.TUPLE([
    Types.STRING(), Types.LONG(), Types.LONG(), Types.LONG(), Types.DOUBLE(), Types.DOUBLE(), Types.DOUBLE(),
    Types.LONG(), Types.LONG(), Types.DOUBLE(),
])  # fmt: skip
NAMES = (
    "key", "start", "requests", "errors", "latency_sum", "latency_min", "latency_max",
    "prompt_tokens", "completion_tokens", "cost_usd",
)  # fmt: skip

Sums = tuple[int, int, float, float, float, int, int, float]


class Aggregate(AggregateFunction):  # type: ignore[misc]
    """Aggregates a pane: counts, sums, minimum and maximum."""

    def create_accumulator(self) -> Sums:
        return 0, 0, 0.0, float("inf"), float("-inf"), 0, 0, 0.0

    def add(self, value: dict[str, Any], accumulator: Sums) -> Sums:
        requests, errors, total, least, greatest, prompt, completion, cost = accumulator
        latency = value["latency_ms"]
        failed = value["status"] != "ok"  # its latency does not count
        return (
            requests + 1,
            errors + failed,
            total if failed else total + latency,
            least if failed else min(least, latency),
            greatest if failed else max(greatest, latency),
            prompt + value["prompt_tokens"],
            completion + value["completion_tokens"],
            cost + value["cost_usd"],
        )

    def get_result(self, accumulator: Sums) -> Sums:
        return accumulator

    def merge(self, a: Sums, b: Sums) -> Sums:
        return (
            a[0] + b[0], a[1] + b[1], a[2] + b[2], min(a[3], b[3]), max(a[4], b[4]), a[5] + b[5], a[6] + b[6],
            a[7] + b[7],
        )  # fmt: skip


class Pane(ProcessWindowFunction):  # type: ignore[misc]
    """Adds the key and the start of the window to a closed pane."""

    def process(self, key: str, context: Any, elements: Iterable[Sums]) -> Iterator[tuple[Any, ...]]:
        window: TimeWindow = context.window()
        for sums in elements:
            yield key, window.start, *sums


class Judge(KeyedProcessFunction):  # type: ignore[misc]
    """Makes an alert if the mean latency is far from the earlier ones (Welford's mean and variance)."""

    def open(self, runtime_context: RuntimeContext) -> None:
        seen = Types.TUPLE([Types.LONG(), Types.DOUBLE(), Types.DOUBLE()])
        self.seen = runtime_context.get_state(ValueStateDescriptor("seen", seen))

    def process_element(self, value: Any, ctx: Any) -> Iterator[str]:
        succeeded = value[2] - value[3]
        if not succeeded:
            return
        number, mean, squares = self.seen.value() or (0, 0.0, 0.0)
        observed = value[4] / succeeded
        deviation = (squares / (number - 1)) ** 0.5 if number > 1 else 0.0
        z = (observed - mean) / deviation if deviation > 0 else 0.0
        delta = observed - mean
        mean += delta / (number + 1)
        self.seen.update((number + 1, mean, squares + delta * (observed - mean)))
        if number >= WARM_PANES and abs(z) > LIMIT:
            yield json.dumps({"key": value[0], "pane_ms": value[1], "observed": observed, "z": z})


def series_of(event: dict[str, Any]) -> str:
    """The series of an event: service and model."""
    return f"{event['service']}|{event['model']}"


def sink(broker: str, topic: str) -> KafkaSink:
    """A sink that writes texts to a topic, exactly once."""
    return (
        KafkaSink.builder()
        .set_bootstrap_servers(broker)
        .set_record_serializer(
            KafkaRecordSerializationSchema.builder()
            .set_topic(topic)
            .set_value_serialization_schema(SimpleStringSchema())
            .build()
        )
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .set_transactional_id_prefix(topic)
        .set_property("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
        .build()
    )


def panes_of_datastream(env: StreamExecutionEnvironment, broker: str, telemetry: str, panes: str) -> DataStream:
    """The panes, made by Python functions, one event at a time."""
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(broker)
        .set_topics(telemetry)
        .set_group_id(panes)
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_bounded(KafkaOffsetsInitializer.latest())
        .set_value_only_deserializer(SimpleStringSchema())
        .build()
    )
    late = WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_seconds(10))
    closed = (
        env.from_source(source, late, "telemetry")
        .map(json.loads)
        .key_by(series_of, key_type=Types.STRING())
        .window(TumblingEventTimeWindows.of(Time.seconds(10)))
        .aggregate(Aggregate(), window_function=Pane(), output_type=PANE)
    )
    rows = closed.map(lambda pane: json.dumps(dict(zip(NAMES, pane, strict=True))), output_type=Types.STRING())
    rows.sink_to(sink(broker, panes))
    return closed


def panes_of_table(env: StreamExecutionEnvironment, broker: str, telemetry: str, panes: str) -> DataStream:
    """The panes, made by SQL."""
    tables = StreamTableEnvironment.create(env)
    tables.execute_sql(f"""
        CREATE TABLE telemetry (
            service STRING, model STRING, status STRING, latency_ms DOUBLE, prompt_tokens BIGINT,
            completion_tokens BIGINT, cost_usd DOUBLE, ended TIMESTAMP_LTZ(3) METADATA FROM 'timestamp',
            WATERMARK FOR ended AS ended - INTERVAL '10' SECOND
        ) WITH (
            'connector' = 'kafka', 'topic' = '{telemetry}', 'properties.bootstrap.servers' = '{broker}',
            'properties.group.id' = '{panes}', 'scan.startup.mode' = 'earliest-offset',
            'scan.bounded.mode' = 'latest-offset', 'format' = 'json'
        )""")
    tables.execute_sql("""
        CREATE TEMPORARY VIEW closed AS
        SELECT service || '|' || model AS `key`,
            UNIX_TIMESTAMP(CAST(window_start AS STRING)) * 1000 AS `start`,
            COUNT(*) AS requests, COUNT(*) FILTER (WHERE status <> 'ok') AS errors,
            SUM(latency_ms) FILTER (WHERE status = 'ok') AS latency_sum,
            MIN(latency_ms) FILTER (WHERE status = 'ok') AS latency_min,
            MAX(latency_ms) FILTER (WHERE status = 'ok') AS latency_max,
            SUM(prompt_tokens) AS prompt_tokens, SUM(completion_tokens) AS completion_tokens, SUM(cost_usd) AS cost_usd
        FROM TABLE(TUMBLE(TABLE telemetry, DESCRIPTOR(ended), INTERVAL '10' SECONDS))
        GROUP BY window_start, window_end, service, model""")
    tables.execute_sql(f"""
        CREATE TABLE panes (
            `key` STRING, `start` BIGINT, requests BIGINT, errors BIGINT, latency_sum DOUBLE, latency_min DOUBLE,
            latency_max DOUBLE, prompt_tokens BIGINT, completion_tokens BIGINT, cost_usd DOUBLE
        ) WITH (
            'connector' = 'kafka', 'topic' = '{panes}', 'properties.bootstrap.servers' = '{broker}',
            'format' = 'json', 'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '{panes}',
            'properties.transaction.timeout.ms' = '{TRANSACTION_TIMEOUT_MS}'
        )""")
    rows = tables.create_statement_set()
    rows.add_insert_sql("INSERT INTO panes SELECT * FROM closed")
    rows.attach_as_datastream()
    return tables.to_data_stream(tables.from_path("closed"))


def key_of(pane: Row) -> str:
    """The series of a pane."""
    return str(pane[0])


def main(api: str, broker: str, telemetry: str, panes: str, alerts: str, folder: str, jar: str) -> None:
    """Run until the topic is read."""
    config = Configuration()
    config.set_string("execution.checkpointing.dir", f"{Path(folder).as_uri()}/checkpoints")
    config.set_string("table.local-time-zone", "UTC")
    config.set_string("python.executable", sys.executable)
    env = StreamExecutionEnvironment.get_execution_environment(config)
    env.set_parallelism(1)
    env.add_jars(Path(jar).as_uri())
    env.enable_checkpointing(10_000, CheckpointingMode.EXACTLY_ONCE)
    build = panes_of_table if api == "table" else panes_of_datastream
    closed = build(env, broker, telemetry, panes)
    judged = closed.key_by(key_of, key_type=Types.STRING()).process(Judge(), output_type=Types.STRING())
    judged.sink_to(sink(broker, alerts))
    env.execute("peers")


if __name__ == "__main__":
    main(*sys.argv[1:])
