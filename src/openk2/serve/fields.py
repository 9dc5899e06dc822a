"""What the bodies of requests have in common."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from openk2.core.messages import is_unicode
from openk2.serve.errors import invalid
from openk2.serve.prompt import MOST_TOOLS
from openk2.serve.service import Settings

MOST_CHOICES = 5
MOST_STOPS, LONGEST_STOP = 5, 32
_NEAR_ZERO = 1e-3
_LONGEST_ID = 10
"""Digits of a token id."""


class Fields(BaseModel):
    """Numbers must be numbers; what is not known is ignored, as clients of other servers send much."""

    model_config = ConfigDict(strict=True, extra="ignore")


class StreamOptions(Fields):
    include_usage: bool = False


Number = Annotated[float, Field(allow_inf_nan=False)]

_MOST_ENTRIES = 50_000
_MOST_IDS = 1 << 18
_Entry = TypeVar("_Entry")
# One wrong entry is enough, and of too many none is looked at: both would hold the event loop up.
Listed = Annotated[list[_Entry], Field(max_length=_MOST_ENTRIES, fail_fast=True)]
Declared = Annotated[list[_Entry], Field(max_length=MOST_TOOLS, fail_fast=True)]
Ids = Annotated[list[int], Field(max_length=_MOST_IDS, fail_fast=True)]


class Sampling(Fields):
    """What OpenAI's two completion routes, and the extensions that vLLM made common, have together."""

    model: str | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: int | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=10)] | None = None
    logit_bias: Annotated[dict[str, Number], Field(max_length=_MOST_ENTRIES)] | None = None
    stop: str | Listed[str] | None = None
    stop_token_ids: Ids | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts. Raises ApiError for too many or too long ones."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MOST_STOPS:
            raise invalid("stop", f"there are {len(stops)} texts, and at most {MOST_STOPS} are allowed")
        for text in stops:
            if not text or not is_unicode(text) or len(text.encode()) > LONGEST_STOP:
                raise invalid("stop", f"a text must have 1 to {LONGEST_STOP} bytes, not {text[:40]!r}")
        return tuple(stops)

    def engine_fields(self, settings: Settings) -> dict[str, Any]:
        """The fields of the engine's Request that are set. Raises ApiError for combinations that make no sense."""
        drawn = temperature_field(settings.temperature if self.temperature is None else self.temperature)
        if (self.n or 1) > 1 and drawn.get("temperature") == 0:
            raise invalid("n", f"with a temperature near 0 all {self.n} choices would be the same: raise it")
        for key, value in (self.logit_bias or {}).items():
            if not key.isdecimal() or len(key) > _LONGEST_ID or abs(value) > 100:
                raise invalid("logit_bias", f"{key[:20]!r}: {value} is no token id with a number from -100 to 100")
        return drawn | given(
            top_p=self.top_p,
            # Some clients say -1 for all.
            top_k=None if self.top_k is None else max(self.top_k, 0),
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=None if self.logit_bias is None else tuple((int(k), v) for k, v in self.logit_bias.items()),
            stop_ids=None if self.stop_token_ids is None else tuple(self.stop_token_ids),
        )


def given(**values: Any) -> dict[str, Any]:
    """The fields that a client has set. One that it has set to a default is not the same as none: a server behind may
    have other defaults."""
    return {name: value for name, value in values.items() if value is not None}


def temperature_field(temperature: float | None) -> dict[str, float]:
    """The temperature as a field of the engine's Request; none if it is left to the server behind."""
    if temperature is None:
        return {}
    return {"temperature": 0.0 if temperature < _NEAR_ZERO else temperature}
