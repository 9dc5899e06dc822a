"""Server speed: `openk2 serve` against llama.cpp's server with the same weights, over HTTP.

    ./k2 bench serve --model nano 100m --concurrency 1 16 64

Ours runs with --compile. Both servers run in processes of their own, with all cores, and answer in turns. Weights are
fp32 on both sides (GGUF by `model export`); prompts are token ids, pieces of this project's sources that begin
differently, greedy, without a grammar. llama.cpp runs with the best of `--peer-threads`, has as many slots as there
are requests at a time, and keeps its prompt cache, as ours does; every round has prompts of its own. Throughput is
generated tokens by the seconds that all requests of a round take; the time to the first token is measured in streams,
one at a time. Before any timing the greedy ids are compared. llama.cpp's own vary with its cache and its batches, and
random experts nearly tie, so where answers part, transformers with the same weights must agree with ours. Both caches
are fp32.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import add_out, machine, parser_of, ratio_with_interval, table, write_results

if TYPE_CHECKING:
    from openk2.model import ModelConfig, Transformer


STREAMED = 8
"""Tokens of an answer whose first one is waited for."""
TIE = 1e-3
"""Log-probs this close are the same choice."""


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", nargs="+", choices=("nano", "100m"), default=["nano", "100m"])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64], help="requests at the same time")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each side")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens to generate")
    parser.add_argument("--peer-threads", type=int, nargs="+", default=[1, 2], help="tried for llama.cpp")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and all else on stderr")
    add_out(parser)
    arguments = parser.parse_args()
    if min(*arguments.concurrency, arguments.prompt, arguments.new, *arguments.peer_threads) < 1:
        parser.error("concurrency, prompt, new and peer-threads must be at least 1")
    if arguments.rounds < 2:
        parser.error("rounds must be at least 2: one has no interval")
    for name in arguments.model:
        context = config_of(name).max_position_embeddings
        if arguments.prompt + max(arguments.new, STREAMED) > context:
            parser.error(f"prompt and new are more than the {context:,} tokens of {name}'s context: ask for less")
    # Standard output is the JSON's alone.
    with contextlib.redirect_stdout(sys.stderr if arguments.json else sys.stdout):
        result = measure(arguments)
    if arguments.json:
        print(json.dumps(result))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All models, on the screen and in the folder for results."""
    results = {name: compare(name, arguments) for name in arguments.model}
    rows = [
        (name, one["concurrency"], f"{one['ours']:,.0f}", f"{one['theirs']:,.0f}", f"{one['ratio']:.2f}x",
         f"{one['ci95'][0]:.2f} to {one['ci95'][1]:.2f}")
        for name, found in results.items()
        for one in found["throughput"]
    ]  # fmt: skip
    first = [
        (name, f"{1e3 * found['first_token']['ours']:.0f}", f"{1e3 * found['first_token']['theirs']:.0f}")
        for name, found in results.items()
    ]
    markdown = (
        f"# Serving, {arguments.prompt} tokens in, {arguments.new} out, {arguments.rounds} rounds in turns\n\n"
        + table(("model", "at a time", "openk2 tok/s", "llama.cpp tok/s", "ratio", "95 % interval"), rows)
        + "\n"
        + table(("model", "first token ms", "llama.cpp"), first)
        + "".join(
            f"\n{name}: {found['same']} of {found['compared']} greedy answers are the same, "
            f"the others part where transformers agrees with ours; llama.cpp ran with "
            f"{found['peer_threads']} thread(s).\n"
            for name, found in results.items()
        )
    )
    result = {
        "machine": machine(),
        "arguments": {k: v for k, v in vars(arguments).items() if k != "out"},
        "models": results,
    }
    write_results(arguments.out, "serve", result, markdown)
    return result


def config_of(name: str) -> ModelConfig:
    """The preset, or nano's shape with about 100 million parameters."""
    from openk2.model import ModelConfig

    if name == "nano":
        return ModelConfig.preset("nano")
    wide = {
        "hidden_size": 512, "intermediate_size": 1536, "moe_intermediate_size": 384, "num_attention_heads": 8,
        "q_lora_rank": 256, "kv_lora_rank": 128, "num_hidden_layers": 10, "n_routed_experts": 16,
        "max_position_embeddings": 8192,
    }  # fmt: skip
    return ModelConfig.build(ModelConfig.preset("nano").model_dump() | wide, where=name)


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    import openk2
    from openk2.chat import Tokenizer
    from openk2.deploy.gguf_file import export_gguf
    from openk2.model import Transformer, save

    nano = Path(openk2.__file__).parent / "weights" / "nano"
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as running:
        folder = Path(scratch) / name
        torch.manual_seed(0)
        config = config_of(name)
        model = Transformer(config)
        save(model, folder, nano)
        parameters = sum(p.numel() for p in model.parameters())
        export_gguf(folder, folder / "model.gguf", dtype="fp32")
        tokenizer = Tokenizer.load(nano)
        sources = sorted((Path(__file__).parent.parent / "src").rglob("*.py"))
        prompts = Prompts(tokenizer.encode("\n".join(path.read_text() for path in sources)), arguments.prompt)
        most = max(arguments.concurrency)
        ours = Ours(running.enter_context(openk2_server(folder, most)))
        peers = {
            threads: Theirs(running.enter_context(llama_server(folder / "model.gguf", threads, most, arguments)))
            for threads in arguments.peer_threads
        }
        best, theirs = max(peers.items(), key=lambda peer: throughput(peer[1], prompts.next(most), arguments.new)[0])
        same, compared = check_same(model.eval(), ours, theirs, prompts.next(8), arguments.new)
        found = {
            "parameters": parameters, "peer_threads": best, "same": same, "compared": compared,
            "throughput": [one_concurrency(ours, theirs, prompts, c, arguments) for c in arguments.concurrency],
        }  # fmt: skip
        first: dict[str, list[float]] = {"ours": [], "theirs": []}
        for prompt in prompts.next(2 * arguments.rounds):
            first["ours"].append(ours.first_token(prompt))
            first["theirs"].append(theirs.first_token(prompt))
        found["first_token"] = {side: statistics.median(seconds) for side, seconds in first.items()}
        return found


class Prompts:
    """Pieces of text, none of which is given out twice."""

    def __init__(self, ids: list[int], length: int) -> None:
        self._ids, self._length, self._at = ids, length, 0

    def next(self, count: int) -> list[list[int]]:
        out = []
        for _ in range(count):
            start = self._at % (len(self._ids) - self._length)
            out.append(self._ids[start : start + self._length])
            self._at += self._length + 1
        return out


def one_concurrency(
    ours: Side, theirs: Side, prompts: Prompts, concurrency: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(arguments.rounds + 1):
        batch = prompts.next(max(concurrency, 4))
        for side, server in (("ours", ours), ("theirs", theirs)):
            rate, _ = throughput(server, batch, arguments.new, concurrency)
            if turn:
                rates[side].append(rate)
    ratio, interval = ratio_with_interval(rates["ours"], rates["theirs"])
    print(f"{concurrency} at a time: {ratio:.2f}x", flush=True)
    medians = {side: statistics.median(values) for side, values in rates.items()}
    return {"concurrency": concurrency, **medians, "ratio": ratio, "ci95": interval, "rates": rates}


def throughput(side: Side, prompts: list[list[int]], new: int, concurrency: int | None = None) -> tuple[float, int]:
    """Tokens per second, and tokens."""
    with ThreadPoolExecutor(concurrency or len(prompts)) as pool:
        start = time.perf_counter()
        count = sum(len(ids) for ids in pool.map(lambda prompt: side.complete(prompt, new), prompts))
        return count / (time.perf_counter() - start), count


def check_same(model: Transformer, ours: Ours, theirs: Theirs, prompts: list[list[int]], new: int) -> tuple[int, int]:
    """How many greedy answers are the same. Where one parts, our id must be the one that transformers chooses; else the
    program ends."""
    import torch
    from _peer import peer_of, variants

    referee = peer_of(model, next(variants(("float32",))), torch.float32).eval()
    same = 0
    for prompt in prompts:
        a, b = ours.complete(prompt, new), theirs.complete(prompt, new)
        first = next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), None)
        if first is None:
            # llama.cpp ends at more of the reserved ids.
            same += 1
            continue
        with torch.inference_mode():
            logits_V = referee(torch.tensor([prompt + a[:first]])).logits[0, -1]
        gap = float(logits_V.max() - logits_V[a[first]])
        if gap > TIE:
            raise SystemExit(
                f"the answers differ at token {first}, where transformers prefers another id by {gap:.4f}: "
                "nothing is measured"
            )
    return same, len(prompts)


class Side(ABC):
    """A server."""

    def __init__(self, url: str) -> None:
        import httpx2

        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self.http = httpx2.Client(base_url=url, timeout=600, limits=limits)

    @abstractmethod
    def complete(self, prompt: list[int], new: int) -> list[int]:
        """The ids that follow."""

    def first_token(self, prompt: list[int]) -> float:
        """Seconds."""
        start = time.perf_counter()
        body = {"prompt": prompt, "max_tokens": STREAMED, "temperature": 0, "stream": True}
        with self.http.stream("POST", "/v1/completions", json=body) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    return time.perf_counter() - start
        raise SystemExit("a stream said nothing")


class Ours(Side):
    def complete(self, prompt: list[int], new: int) -> list[int]:
        body = {"prompt": prompt, "max_tokens": new, "temperature": 0, "return_token_ids": True}
        ids: list[int] = self.http.post("/v1/completions", json=body).json()["choices"][0]["token_ids"]
        return ids


class Theirs(Side):
    def complete(self, prompt: list[int], new: int) -> list[int]:
        body = {"prompt": prompt, "n_predict": new, "temperature": 0.0, "top_k": 1, "return_tokens": True}
        ids: list[int] = self.http.post("/completion", json=body).json()["tokens"]
        return ids


@contextlib.contextmanager
def openk2_server(folder: Path, most: int) -> Iterator[str]:
    command = [sys.executable, "-m", "openk2", "serve", "--model", str(folder), "--port", "0", "--compile"]
    with started([*command, "--max-running", str(most)]) as line:
        yield line.rsplit(" ", 1)[1].strip()


@contextlib.contextmanager
def llama_server(path: Path, threads: int, most: int, arguments: argparse.Namespace) -> Iterator[str]:
    context = most * (arguments.prompt + arguments.new + 64)
    with started([sys.executable, "-c", LLAMA, str(path), str(threads), str(most), str(context)]) as line:
        yield line.strip()


LLAMA = """
import sys, time
import xllamacpp

path, threads, slots, context = sys.argv[1], *map(int, sys.argv[2:])
parameters = xllamacpp.CommonParams()
parameters.model.path = path
parameters.n_ctx, parameters.n_parallel = context, slots
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type(0)  # fp32
parameters.verbosity = -1
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
while True:
    time.sleep(3600)
"""


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[str]:
    """A server's first line that names an address."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    ) as process:
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if "http://" in line), None)
            if line is None:
                raise SystemExit(f"{command[:4]} does not start")
            yield line
        finally:
            process.kill()


if __name__ == "__main__":
    main()
