"""Who answers requests: what every service can do, whether the model is here or behind another server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from openk2.serve.answer import Ready
from openk2.serve.errors import invalid, shutting_down, too_many
from openk2.serve.prompt import Asked

K2_SCALE = 0.6
"""What Moonshot's endpoint multiplies Anthropic's temperatures with."""
_RETRY_AFTER = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server allows.

    `temperature` is the one of requests that name none; None leaves it to the server behind. `max_running` requests are
    answered at the same time, `max_queued` wait beyond them. Anthropic's temperatures are multiplied with
    `anthropic_scale`.
    """

    name: str
    temperature: float | None = 0.6
    anthropic_scale: float = K2_SCALE
    max_running: int = 64
    max_queued: int = 256
    max_body: int = 32 << 20
    keys: frozenset[str] = frozenset()


class Service(ABC):
    """Answers conversations.

    `tokens` counts those of the answered requests. `context` is None where it is not known.
    """

    context: int | None

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tokens: dict[Literal["prompt", "cached", "completion"], int] = {"prompt": 0, "cached": 0, "completion": 0}
        self._closing = False

    @abstractmethod
    def prepare(self, asked: Asked) -> Ready:
        """Check all that can be checked. Heavy: not for the event loop. Raises ApiError for what cannot be served."""

    @abstractmethod
    async def count(self, asked: Asked) -> int:
        """How many tokens the prompt has. Raises ApiError."""

    @property
    @abstractmethod
    def load(self) -> tuple[int, int]:
        """How many requests are being answered, and how many wait."""

    @property
    @abstractmethod
    def busy(self) -> int:
        """How many requests are on their way."""

    @abstractmethod
    async def close(self, grace: float) -> None:
        """Take nothing new, give what runs `grace` seconds, then end it."""

    def admit(self, count: int) -> None:
        """Raises ApiError if there is no place for so many more requests."""
        if self._closing:
            raise shutting_down()
        places = self.settings.max_running + self.settings.max_queued
        if count > places:
            problem = f"{count} answers at once are asked for, and this server has {places} places"
            raise invalid(None, f"{problem}: ask for fewer with n, or send fewer prompts")
        if self.busy + count > places:
            raise too_many(_RETRY_AFTER)

    def _count(self, prompt: int, cached: int, completion: int) -> None:
        self.tokens["prompt"] += prompt
        self.tokens["cached"] += cached
        self.tokens["completion"] += completion
