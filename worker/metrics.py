"""What a run tells Prometheus: in a file for node_exporter, on a port of this machine, or pushed to a gateway.

Numbers are read off the run when they are asked for, so they cost a row nothing. They say nothing about any row or
person: names and outcomes only. What cannot be delivered is said once and never holds a run up.
"""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import anyio
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import basic_auth_handler, default_handler, pushadd_to_gateway
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from yarl import URL

from worker.config import MetricsSettings
from worker.errors import ConfigError
from worker.latency import Percentiles
from worker.model import BUCKETS, Exit, Tally

SECONDS = 60.0
"""How often the file is written and the gateway is told."""

_PUSH_SECONDS = 5.0
_LAST_SUCCESS = "flex_import_last_success_timestamp_seconds"


class Queue(NamedTuple):
    """What a fleet has to do. left: queued rows whose chunk is over; waiting, taken: chunks; workers: who is alive."""

    rows: int
    left: int
    waiting: int
    taken: int
    workers: int


class Reading(NamedTuple):
    """A run at one moment. rate: requests a second at most; slots: at once; latest: how long answers took lately.

    queue: of a worker, once it has looked.
    """

    run: int
    command: str
    version: str
    started_at: float
    tally: Tally
    rate: float
    slots: int
    latest: Percentiles | None
    queue: Queue | None = None


@dataclass(frozen=True, slots=True)
class _Ended:
    at: float
    seconds: float
    code: int


class _Numbers(Collector):
    """Makes metrics of a run whenever somebody asks. last_success: seconds since 1970, 0 for not known."""

    def __init__(self, last_success: float) -> None:
        self.look: Callable[[], Reading] | None = None
        self.ended: _Ended | None = None
        self.last_success = last_success

    def collect(self) -> Iterator[Metric]:
        if self.last_success:
            yield GaugeMetricFamily(_LAST_SUCCESS, "When a run last ended with exit 0.", self.last_success)
        if self.look is None:
            return
        reading = self.look()
        yield from _about(reading)
        yield from _counted(reading.tally)
        if reading.queue:
            yield from _queued(reading.queue)
        running = 0 if self.ended else 1
        yield GaugeMetricFamily("flex_import_run_in_progress", "Whether a run is at work.", running)
        if self.ended:
            yield GaugeMetricFamily("flex_import_last_run_timestamp_seconds", "When the run ended.", self.ended.at)
            yield GaugeMetricFamily("flex_import_last_run_duration_seconds", "How long it took.", self.ended.seconds)
            yield GaugeMetricFamily("flex_import_last_run_exit_code", "Its exit code.", self.ended.code)


def _about(reading: Reading) -> Iterator[Metric]:
    labels = {"run": str(reading.run), "command": reading.command, "version": reading.version}
    yield InfoMetricFamily("flex_import_run", "The run that the other numbers are of.", labels)
    yield GaugeMetricFamily("flex_import_run_started_timestamp_seconds", "When it began.", reading.started_at)
    yield GaugeMetricFamily("flex_import_rate_limit", "Requests a second at most, as found or set.", reading.rate)
    yield GaugeMetricFamily("flex_import_concurrency_limit", "Requests at once, at most.", reading.slots)
    if reading.latest:
        seconds = GaugeMetricFamily(
            "flex_import_answer_seconds", "How long answers took lately, by percentile.", labels=["percentile"]
        )
        for percentile, value in zip(("50", "90", "99"), reading.latest, strict=True):
            seconds.add_metric([percentile], value)
        yield seconds


def _counted(tally: Tally) -> Iterator[Metric]:
    rows = GaugeMetricFamily("flex_import_rows", "Rows of the run's input, by what became of them.", labels=["outcome"])
    for name in (*BUCKETS, "unread"):
        rows.add_metric([name], getattr(tally, name))
    yield rows
    if tally.input_rows is not None:
        yield GaugeMetricFamily("flex_import_input_rows", "Rows of the run's input.", tally.input_rows)
    yield CounterMetricFamily("flex_import_requests", "Requests that left.", tally.requests)
    yield CounterMetricFamily("flex_import_retries", "Requests that were sent again.", tally.retries)
    yield CounterMetricFamily("flex_import_throttled", "Answers 429.", tally.throttled)
    yield GaugeMetricFamily("flex_import_requests_in_flight", "Requests without an answer yet.", tally.in_flight)
    if tally.last_request is not None:
        last = "When the last request left."
        yield GaugeMetricFamily("flex_import_last_request_timestamp_seconds", last, tally.last_request)


def _queued(queue: Queue) -> Iterator[Metric]:
    yield GaugeMetricFamily("flex_import_queued_rows", "Rows in the queue of all workers.", queue.rows)
    yield GaugeMetricFamily("flex_import_left_rows", "Those of them that wait for the next enqueue.", queue.left)
    chunks = GaugeMetricFamily("flex_import_chunks", "Chunks of queued rows.", labels=["state"])
    chunks.add_metric(["waiting"], queue.waiting)
    chunks.add_metric(["taken"], queue.taken)
    yield chunks
    yield GaugeMetricFamily("flex_import_workers", "Workers that are alive.", queue.workers)


class Metrics:
    """The numbers of one run, and where they go. on_failure: is told once what could not be delivered, and why.

    wanted: whether they go anywhere.
    """

    def __init__(
        self, settings: MetricsSettings, textfile: Path | None, on_failure: Callable[[str, str], None]
    ) -> None:
        self._textfile = textfile
        self._gateway = settings.pushgateway
        self.wanted = bool(textfile or settings.pushgateway or settings.port)
        self._on_failure = on_failure
        self._failed: set[str] = set()
        self._numbers = _Numbers(_last_success(textfile))
        self.registry = CollectorRegistry()
        self.registry.register(self._numbers)

    def watch(self, look: Callable[[], Reading]) -> None:
        """Read the numbers off this run from now on."""
        self._numbers.look = look

    async def keep(self) -> None:
        """Deliver now and once a minute. Runs until it is cancelled."""
        while True:
            await self._deliver()
            await anyio.sleep(SECONDS)

    async def finish(self, code: int, seconds: float) -> None:
        """Deliver how the run ended. seconds: how long it took."""
        now = time.time()
        self._numbers.ended = _Ended(now, seconds, code)
        if code == Exit.DONE:
            self._numbers.last_success = now
        await self._deliver()

    async def _deliver(self) -> None:
        if self._textfile:
            await self._try("metrics.textfile", partial(_write, self._textfile, self.registry))
        if self._gateway:
            await self._try("metrics.pushgateway", self._push)

    async def _try(self, key: str, act: Callable[[], None]) -> None:
        try:
            await anyio.to_thread.run_sync(act, abandon_on_cancel=True)
        except OSError as exc:
            reason = exc.reason if isinstance(exc, URLError) else exc.strerror or type(exc).__name__
            if key not in self._failed:
                self._failed.add(key)
                self._on_failure(key, str(reason))

    def _push(self) -> None:
        url = URL(self._gateway)
        handler = default_handler
        if url.user or url.password:
            handler = partial(basic_auth_handler, username=url.user, password=url.password)
        pushadd_to_gateway(
            str(url.with_user(None)),
            job="flex_import",
            registry=self.registry,
            grouping_key={"instance": socket.gethostname()},
            timeout=_PUSH_SECONDS,
            handler=handler,
        )


@contextmanager
def serving(settings: MetricsSettings, metrics: Metrics) -> Iterator[None]:
    """Serve the numbers on `metrics.port` of 127.0.0.1, if one is set. Raises ConfigError when it is taken."""
    if not settings.port:
        yield
        return
    try:
        server, thread = start_http_server(settings.port, addr="127.0.0.1", registry=metrics.registry)
    except OSError as exc:
        raise ConfigError(f"metrics.port: {settings.port} of 127.0.0.1 cannot be used: {exc.strerror}") from exc
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_PUSH_SECONDS)


def _write(path: Path, registry: CollectorRegistry) -> None:
    """Write the file whole or not at all, readable for node_exporter, which is somebody else."""
    descriptor, name = tempfile.mkstemp(".part", f".{path.name}.", path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(generate_latest(registry))
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _last_success(path: Path | None) -> float:
    """Return when a run last succeeded, as the file of an earlier one says: a failing run must not forget that."""
    if path is not None:
        with suppress(OSError, ValueError):
            for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
                if family.name == _LAST_SUCCESS:
                    return float(family.samples[0].value)
    return 0.0
