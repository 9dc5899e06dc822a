"""Generation speed with a cache: this project's engine against transformers' `generate` on the same weights.

    ./k2 bench generate --model FOLDER        # a folder with weights and tokenizer
    ./k2 bench generate                       # the nano preset with random weights

Greedy, no grammar, same prompts (pieces of this project's sources), same dtype, threads and allocator, in one
process, prompt by prompt in turns. The peer runs in the fastest of its attention and expert implementations, found
first, and with the defaults of its `generate`; the engine, alone with one sequence, guesses ahead from the prompt
(its default), or with --compile has a compiled step for any number of them. Before any timing the fp32 logits must
agree within 1e-4. Texts are compared: they may part only where the two likeliest tokens are closer than 1e-3
(rounding depends on the order of sums), and how many did is reported.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from _common import add_out, enter_child, machine, parser_of, ratio_with_interval, table, write_results


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="random:nano", help="FOLDER or random:PRESET")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="sequences decoded together")
    parser.add_argument("--rounds", type=int, default=10, help="measured rounds of each side, per batch size")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=128, help="most tokens to generate")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="the engine's compiled step")
    add_out(parser)
    arguments = parser.parse_args()
    if min(*arguments.batch, arguments.prompt, arguments.new, arguments.threads) < 1:
        parser.error("batch, prompt, new and threads must be at least 1")
    if arguments.rounds < 2:
        parser.error("rounds must be at least 2: one has no interval")
    enter_child(arguments.threads)
    compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    import torch
    from _peer import Variant, logit_gap, peer_of, variants

    from openk2.chat import Tokenizer
    from openk2.engine import Engine, Request
    from openk2.model import ModelConfig, Transformer, load

    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    texts = [path.read_text() for path in sorted((Path(__file__).parent.parent / "src").rglob("*.py"))]
    if arguments.model.startswith("random:"):
        config = ModelConfig.preset(arguments.model.removeprefix("random:"))
        model, tokenizer = Transformer(config), Tokenizer.train(iter(texts), vocab_size=config.vocab_size)
    else:
        model, tokenizer = load(arguments.model, dtype=torch.float32), Tokenizer.load(arguments.model)
    model.eval()
    engine = Engine(model, tokenizer, dtype=dtype, compiled=arguments.compile)
    text_ids = tokenizer.encode("\n".join(texts))

    def prompts(round_number: int, batch: int) -> list[list[int]]:
        stride = (len(text_ids) - arguments.prompt) // 997
        starts = [((round_number * 64 + row) * 131 % 997) * stride for row in range(batch)]
        return [text_ids[start : start + arguments.prompt] for start in starts]

    def ours(batch_ids: list[list[int]]) -> list[list[int]]:
        requests = [Request(tuple(ids), arguments.new, grammar=False) for ids in batch_ids]
        return [list(generation.ids) for generation in engine.generate(requests)]

    def theirs(peer: Any, batch_ids: list[list[int]]) -> list[list[int]]:
        ids_BT = torch.tensor(batch_ids)
        with torch.inference_mode():
            out_BT = peer.generate(
                ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                max_new_tokens=arguments.new,
                do_sample=False,
                eos_token_id=tokenizer.eos_id,
                pad_token_id=tokenizer.pad_id,
            )
        rows = []
        for row in out_BT[:, arguments.prompt :].tolist():
            end = row.index(tokenizer.eos_id) + 1 if tokenizer.eos_id in row else len(row)
            rows.append(row[:end])
        return rows

    def parted_early(batch_ids: list[list[int]], mine: list[list[int]], other: list[list[int]]) -> tuple[int, int]:
        """(texts that differ, texts that differ although the choice was clear)."""
        differ = unexplained = 0
        for prompt, a, b in zip(batch_ids, mine, other, strict=True):
            if a == b:
                continue
            differ += 1
            same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            with torch.inference_mode():
                top = engine.model(torch.tensor([prompt + a[:same]]))[0, -1].float().topk(2).values
            unexplained += bool(top[0] - top[1] > (1e-3 if dtype == torch.float32 else 0.1))
        return differ, unexplained

    gap = 0.0
    seconds: dict[Variant, float] = {}
    peers: dict[Variant, torch.nn.Module] = {}
    probe = prompts(0, min(arguments.batch))
    for variant in variants((arguments.dtype,)):
        gap = max(gap, logit_gap(model, variant, torch.tensor(probe)))
        peers[variant] = peer_of(model, variant, dtype).eval()
        theirs(peers[variant], probe)
        start = time.perf_counter()
        theirs(peers[variant], probe)
        seconds[variant] = time.perf_counter() - start
        print(f"peer, {variant}: {seconds[variant]:.3f} s", flush=True)
    if not gap <= 1e-4:
        raise SystemExit(f"the logits differ by {gap:.2e}, more than 1e-4: nothing is measured")
    best = min(seconds, key=lambda variant: seconds[variant])
    peer = peers[best]

    lines, results, unexplained_in_all = [], [], 0
    for batch in arguments.batch:
        ours(prompts(0, batch)), theirs(peer, prompts(0, batch))
        ours_s: list[float] = []
        theirs_s: list[float] = []
        differ = unexplained = tokens = 0
        for number in range(1, 1 + arguments.rounds):
            batch_ids = prompts(number, batch)
            start = time.perf_counter()
            mine = ours(batch_ids)
            middle = time.perf_counter()
            other = theirs(peer, batch_ids)
            end = time.perf_counter()
            ours_s.append((middle - start) / sum(map(len, mine)))
            theirs_s.append((end - middle) / sum(map(len, other)))
            tokens += sum(map(len, mine))
            more, worse = parted_early(batch_ids, mine, other)
            differ, unexplained = differ + more, unexplained + worse
        unexplained_in_all += unexplained
        ratio, interval = ratio_with_interval(theirs_s, ours_s)
        rates = 1 / statistics.median(ours_s), 1 / statistics.median(theirs_s)
        results.append(
            {
                "batch": batch,
                "tokens": tokens,
                "ours_seconds_per_token": ours_s,
                "theirs_seconds_per_token": theirs_s,
                "ratio": ratio,
                "ratio_ci95": interval,
                "texts": arguments.rounds * batch,
                "texts_that_differ": differ,
                "texts_that_differ_at_a_clear_choice": unexplained,
            }
        )
        speed_up = f"**{ratio:.2f}x** ({interval[0]:.2f} to {interval[1]:.2f})"
        lines.append(
            (batch, f"{rates[0]:,.0f}", f"{rates[1]:,.0f}", speed_up, f"{differ} of {arguments.rounds * batch}")
        )
    result = {
        "what": "prefill and greedy decoding with a cache",
        "config": {k: v for k, v in vars(arguments).items() if k != "out"},
        "machine": machine(),
        "logit_gap_fp32": gap,
        "peer_variants_seconds": {str(variant): value for variant, value in seconds.items()},
        "peer_variant": str(best),
        "results": results,
    }
    markdown = (
        f"# Generation: {arguments.model}, {arguments.dtype}, {arguments.prompt} + at most {arguments.new} tokens, "
        f"{arguments.threads} thread(s)\n\n"
        + table(
            ("batch", "openk2 tokens/s", "transformers tokens/s", "ratio (95 % interval)", "texts that differ"), lines
        )
        + f"\nPeer: {best}. fp32 logits agree within {gap:.1e}.\n"
    )
    write_results(arguments.out, "generate", result, markdown)
    if unexplained_in_all:
        raise SystemExit(f"{unexplained_in_all} texts parted at a clear choice: the comparison is not valid")


if __name__ == "__main__":
    main()
