"""What Prometheus reads at `/metrics`."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from openk2.serve.service import Service


class Metrics:
    """The numbers of one server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "openk2_requests", "Requests that have ended", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "openk2_request_seconds", "Seconds from request to end of answer", ("route",), registry=self._registry
        )
        self._load = Gauge("openk2_engine_requests", "Requests in the engine", ("state",), registry=self._registry)
        self._tokens = Gauge(
            "openk2_tokens", "Tokens of answered requests since the start", ("kind",), registry=self._registry
        )

    def note(self, route: str, status: int, seconds: float) -> None:
        """A request that has ended."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def exposition(self) -> tuple[bytes, str]:
        """The text and its content type."""
        running, waiting = self._service.load
        self._load.labels("running").set(running)
        self._load.labels("waiting").set(waiting)
        for kind, count in self._service.tokens.items():
            self._tokens.labels(kind).set(count)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
