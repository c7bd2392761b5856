"""A running daemon's metrics, fetched as Prometheus fetches them.

Knows HTTP and the text format. Doesn't know what the metrics mean.
"""

import json
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from daemon import status
from daemon.config import Config


def scrape(config: Config) -> dict[str, float]:
    """Every sample that the running daemon serves over HTTP."""
    url = f"http://{config.metrics.host}:{status.metrics_port(config)}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        sample.name + (json.dumps(sample.labels) if sample.labels else ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("palimpsest_")
    }
