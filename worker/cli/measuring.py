"""Where a run's metrics go, as the config says."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from worker.config import Config
from worker.errors import ConfigError
from worker.metrics import Metrics, serving


@contextmanager
def measured(config: Config) -> Iterator[Metrics]:
    """Yield who tells Prometheus about a run. Raises ConfigError for a port or a folder that cannot be used."""
    settings = config.settings.metrics
    textfile = config.beside(settings.textfile) if settings.textfile else None
    if textfile and not textfile.parent.is_dir():
        raise ConfigError(f"metrics.textfile: {textfile.parent} is not there, or no folder")

    def complain(key: str, reason: str) -> None:
        structlog.get_logger().warning("metrics.undelivered", key=key, reason=reason)

    metrics = Metrics(settings, textfile, complain)
    with serving(settings, metrics):
        yield metrics
