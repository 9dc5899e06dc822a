"""A server under everything at once: right answers, clients that leave, bad bodies; nothing leaks, nothing is stuck."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

httpx2 = pytest.importorskip("httpx2")

PATH = "/v1/chat/completions"
MARGIN = 1e-3
"""Below this distance of the two likeliest ids, either may be taken: floats depend on the shape of the batch."""
TOOL = {
    "type": "function",
    "function": {
        "name": "note",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string", "maxLength": 12}, "n": {"type": "integer"}},
            "required": ["text"],
        },
    },
}
BAD: tuple[Any, ...] = (
    b"{", b"[]", b"\x00" * 100, {}, {"messages": 3}, {"messages": [{"role": "x"}]}, {"messages": [], "stream": True},
    {"messages": [{"role": "user", "content": "x"}], "max_tokens": -1},
    {"messages": [{"role": "user", "content": "long " * 3000}]},
    {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function", "function": {"name": "a",
     "parameters": {"type": "array"}}}]},
)  # fmt: skip


def bodies(count: int) -> list[dict[str, Any]]:
    """Requests whose answers are known after one serial run."""
    out = []
    for i in range(count):
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": f"{'shared beginning ' * (i % 5)}request {i}"}],
            "max_tokens": 4 + i % 25,
            "temperature": 0 if i % 2 else 1.0,
            "seed": i,
            "return_token_ids": True,
            "logprobs": True,
            "top_logprobs": 2,
        }
        if i % 4 == 0:
            body |= {"tools": [TOOL], "tool_choice": "required", "max_tokens": 60, "parallel_tool_calls": False}
        out.append(body)
    return out


def ids_and_margins(choice: dict[str, Any]) -> tuple[list[int], list[float]]:
    tops = [entry["top_logprobs"] for entry in choice["logprobs"]["content"]]
    return choice["token_ids"], [top[0]["logprob"] - top[1]["logprob"] for top in tops]


def resident(pid: int) -> int:
    """Bytes of memory that the process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


class Soak:
    """Many requests of every kind against one server."""

    def __init__(self, server: Any, seed: int) -> None:
        self._server = server
        self._rng = random.Random(seed)
        self._bodies = bodies(60)
        self._known = [ids_and_margins(server.post(PATH, body)["choices"][0]) for body in self._bodies]
        self.counts: Counter[str] = Counter()
        self.wrong: list[Any] = []

    async def run(self, requests: int, concurrency: int) -> None:
        limits = httpx2.Limits(max_connections=concurrency)
        async with httpx2.AsyncClient(base_url=self._server.url, timeout=120, limits=limits) as client:
            gate = asyncio.Semaphore(concurrency)

            async def one() -> None:
                async with gate:
                    await self._one(client)

            for start in range(0, requests, 500):
                await asyncio.gather(*(one() for _ in range(min(500, requests - start))))

    async def _one(self, client: Any) -> None:
        kind = self._rng.choices(["whole", "stream", "leave", "give up", "bad"], [40, 35, 10, 5, 10])[0]
        index = self._rng.randrange(len(self._bodies))
        body = self._bodies[index]
        self.counts[kind] += 1
        if kind == "bad":
            bad = self._rng.choice(BAD)
            content = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
            self._expect((await client.post(PATH, content=content)).status_code, 400)
        elif kind == "give up":
            try:
                await client.post(PATH, json=body | {"max_tokens": 800}, timeout=self._rng.uniform(0.001, 0.1))
            except httpx2.TimeoutException:
                self.counts["given up"] += 1
        elif kind == "whole":
            answer = await client.post(PATH, json=body)
            self._expect(answer.status_code, 200)
            self._compare(index, answer.json()["choices"][0]["token_ids"])
        else:
            chunks = self._rng.randrange(1, 6) if kind == "leave" else None
            ids: list[int] = []
            async with client.stream("POST", PATH, json=body | {"stream": True}) as answer:
                self._expect(answer.status_code, 200)
                async for line in answer.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    for choice in json.loads(line.removeprefix("data: "))["choices"]:
                        ids += choice.get("token_ids", [])
                    if chunks is not None and (chunks := chunks - 1) == 0:
                        return
            self._compare(index, ids)

    def _expect(self, status: int, wanted: int) -> None:
        if status != wanted:
            self.wrong.append(("status", status, wanted))

    def _compare(self, index: int, ids: list[int]) -> None:
        """With the serial run; a tie may go either way."""
        self.counts["compared"] += 1
        known, margins = self._known[index]
        if ids == known:
            return
        first = next(i for i, pair in enumerate(zip([*ids, -1], [*known, -2], strict=False)) if pair[0] != pair[1])
        if self._bodies[index]["temperature"] == 0 and first < len(margins) and margins[first] < MARGIN:
            self.counts["ties"] += 1
        else:
            self.wrong.append(("ids", index, first))


def idle(server: Any) -> None:
    """Wait until nothing is generated or waits."""
    deadline = time.monotonic() + 60
    while True:
        lines = server.http.get("/metrics").text.splitlines()
        states = [float(line.split()[1]) for line in lines if line.startswith("openk2_engine_requests")]
        if states == [0, 0]:
            return
        assert time.monotonic() < deadline, "a slot is stuck"
        time.sleep(0.1)


def soaked(server: Any, warm_up: int, requests: int) -> Soak:
    """Run; memory after the warm-up and at the end differ by less than 5 %."""
    soak = Soak(server, seed=1)
    asyncio.run(soak.run(warm_up, concurrency=48))
    idle(server)
    before = resident(server.process.pid)
    asyncio.run(soak.run(requests, concurrency=48))
    idle(server)
    after = resident(server.process.pid)
    print(f"{dict(soak.counts)}, {before / 2**20:.0f} MiB before and {after / 2**20:.0f} MiB after")
    assert not soak.wrong, soak.wrong[:5]
    assert after < 1.05 * before
    assert all(soak.counts[kind] for kind in ("whole", "stream", "leave", "given up", "bad", "compared"))
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert not [line for line in lines if line["status"] >= 500]
    return soak


def test_a_little_of_everything(start: Callable[..., Any]) -> None:
    soaked(start("--model", "random:test", "--max-running", "32"), 250, 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_thousand_requests(start: Callable[..., Any]) -> None:
    soak = soaked(start("--model", "random:test", "--max-running", "32"), 2_000, 20_000)
    assert sum(soak.counts[kind] for kind in ("whole", "stream", "leave", "give up", "bad")) == 22_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_hundred_streams_at_once(start: Callable[..., Any]) -> None:
    server = start("--model", "random:test", "--max-running", "64", "--max-queued", "500")
    open_now = most = 0

    async def one(client: Any, seed: int, all_open: asyncio.Event) -> int:
        nonlocal open_now, most
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 40, "temperature": 1.0, "seed": seed,
                "stream": True, "logit_bias": {}, "return_token_ids": True}  # fmt: skip
        ids = 0
        async with client.stream("POST", PATH, json=body) as answer:
            assert answer.status_code == 200
            open_now += 1
            most = max(most, open_now)
            if open_now == 500:
                all_open.set()
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    ids += sum(len(c.get("token_ids", [])) for c in json.loads(line[6:])["choices"])
            assert line == "" or line == "data: [DONE]"
        open_now -= 1
        return ids

    async def all_of_them() -> list[int]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
            all_open = asyncio.Event()
            return await asyncio.gather(*(one(client, seed, all_open) for seed in range(500)))

    counts = asyncio.run(all_of_them())
    assert all(counts) and most > 450
    idle(server)
