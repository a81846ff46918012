"""Every route of the API: a module a noun, each with its handlers and its rows."""

from typing import Any

from host_agent.api.route import Route
from host_agent.api.routes import asks, bridges, host, people, requests

ROUTES: tuple[Route[Any], ...] = (
    *asks.ROUTES,
    *requests.ROUTES,
    *people.ROUTES,
    *bridges.ROUTES,
    *host.ROUTES,
)
