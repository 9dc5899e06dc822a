"""The engine gives what the reference gives, alone and in any company."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import pytest
import torch

from openk2.chat import Tokenizer, parse_completion, render
from openk2.core import ContextOverflow, Message, ToolSpec, UserError
from openk2.engine import Engine, Generation, Part, Request, reference_generate
from openk2.engine.rows import Rows
from openk2.engine.sampling import adjust, gumbel_noise, keep_min_p, keep_top_k, keep_top_p
from openk2.model import LatentCache, ModelConfig, Transformer

TOOLS = (
    ToolSpec("pick", "", {"type": "object", "properties": {"way": {"enum": ["north", "süd"]}}, "required": ["way"]}),
    ToolSpec("ping", "", {"type": "object", "properties": {}}),
)
TEXT = {"type": "object", "properties": {"text": {"type": "string", "minLength": 300}}, "required": ["text"]}


@pytest.fixture(scope="module")
def engine(small_model: Transformer, tokenizer: Tokenizer) -> Engine:
    return Engine(small_model, tokenizer, max_batch=3)


def prompt(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    messages = [Message("system", "s"), Message("user", text)]
    return tuple(render(messages, tokenizer=tokenizer, add_generation_prompt=True).ids)


def requests(tokenizer: Tokenizer) -> list[Request]:
    plain = [
        Request(prompt(text, tokenizer), max_tokens=n, temperature=t, top_p=p, seed=s, grammar=g, tools=TOOLS)
        for text, n, t, p, s, g in [
            ("hello", 5, 0.0, 1.0, 0, True),
            ("a rather longer request than the first one, with 12 numbers", 12, 0.0, 1.0, 0, False),
            ("x", 20, 1.0, 1.0, 7, True),
            ("hello", 20, 1.0, 1.0, 8, True),
            ("hello", 9, 0.7, 0.9, 9, False),
            ("hello again", 1, 1.0, 0.5, 1, True),
        ]
    ]
    penalised = {"presence_penalty": 0.7, "frequency_penalty": 0.4, "repetition_penalty": 1.3, "top_logprobs": 3}
    drawn = {"temperature": 0.9, "top_k": 20, "min_p": 0.01, "seed": 3}
    bias = tuple((i, -1.5) for i in range(0, 400, 3))
    return [
        *plain,
        *(replace(r, max_tokens=80) for r in plain[2:4]),
        replace(plain[1], max_tokens=40, **penalised),
        replace(plain[4], max_tokens=40, **penalised, **drawn, logit_bias=bias),
    ]


def test_long_prompts_are_computed_in_pieces_between_the_ids_of_others(engine: Engine) -> None:
    pieces = Engine(engine.model, engine.tokenizer, max_batch=3, prefill_chunk=16)
    short, *others = requests(engine.tokenizer)
    long = Request((*short.prompt_ids, *range(5, 105)), max_tokens=6, temperature=1.0, seed=2, grammar=False)
    batch = pieces.batch()
    first = batch.add(replace(short, max_tokens=30, grammar=False))
    batch.step()
    batch.add(long)
    grown = []
    while not any(part.ids for index, part in batch.parts({1: 0}) if index == 1):
        batch.step()
        grown.append(len(dict(batch.parts({first: 0}))[first].ids))
    # Seven pieces, and an id of the other one with each.
    assert len(grown) == -(-(len(long.prompt_ids)) // 16) and grown == list(range(grown[0], grown[0] + len(grown)))
    # In every order, with ones that leave while another is being read, and with what the finished ones left.
    wanted = [long, *others, replace(long, seed=9), short]
    for request, generation in zip(wanted, pieces.generate(wanted), strict=True):
        alone = reference_generate(engine.model, engine.tokenizer, request)
        assert generation.ids == alone.ids, request
        assert generation.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    # One that is given up half-way leaves what there is of it.
    batch = pieces.batch()
    batch.add(short)
    batch.step()
    index = batch.add(long)
    batch.step()
    batch.drop(index)
    again = batch.add(long)
    done: dict[int, Generation] = {}
    while batch.busy:
        done |= batch.step()
    assert done[again].ids == reference_generate(engine.model, engine.tokenizer, long).ids
    assert done[again].cached_tokens >= 16


@pytest.mark.parametrize(("prefill_chunk", "prefixes"), [(8, 0), (1024, 64)])
def test_requests_wait_until_the_cache_has_room(engine: Engine, prefill_chunk: int, prefixes: int) -> None:
    config = engine.model.config
    each = config.num_hidden_layers * config.latent_dim * 4
    small = Engine(engine.model, engine.tokenizer, max_batch=8, context=150, cache_bytes=300 * each,
                   prefill_chunk=prefill_chunk, prefixes=prefixes)  # fmt: skip
    base = requests(engine.tokenizer)[0]
    # As long as the context allows, and one with a call in which the grammar forces ids.
    call = {"grammar": True, "must_call": True, "tools": (ToolSpec("write", "", TEXT),)}
    wanted = [replace(base, prompt_ids=tuple(range(5 + i, 35 + i)), max_tokens=120, seed=i, temperature=1.0,
                      **(call if i == 2 else {"grammar": False})) for i in range(8)]  # fmt: skip
    batch = small.batch()
    for request in wanted:
        batch.add(request)
    done: dict[int, Generation] = {}
    counts = []
    while batch.busy:
        done |= batch.step()
        counts.append((batch.running, len(done)))
        assert batch.cached <= 300
    # There is room for three as they come, and for two when they have become as long as the context.
    assert max(running for running, _ in counts) == 3
    assert any(now[0] < before[0] and now[1] == before[1] for before, now in pairwise(counts))
    for index, request in enumerate(wanted):
        alone = reference_generate(engine.model, engine.tokenizer, request)
        assert done[index].ids == alone.ids
        assert done[index].logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    with pytest.raises(UserError, match="holds 99 tokens and the context is 150"):
        Engine(engine.model, engine.tokenizer, context=150, cache_bytes=100 * each - 1)


def test_batched_equals_reference(engine: Engine) -> None:
    wanted = requests(engine.tokenizer)
    got = engine.generate(wanted)
    for request, generation in zip(wanted, got, strict=True):
        alone = reference_generate(engine.model, engine.tokenizer, request)
        assert generation.ids == alone.ids, request
        assert generation.finish_reason == alone.finish_reason
        assert generation.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert len(generation.top_logprobs) == (len(generation.ids) if request.top_logprobs else 0)
        for got_top, wanted_top in zip(generation.top_logprobs, alone.top_logprobs, strict=True):
            assert [i for i, _ in got_top] == [i for i, _ in wanted_top]
            assert [v for _, v in got_top] == pytest.approx([v for _, v in wanted_top], abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_devices_and_types(engine: Engine, device: torch.device, dtype: torch.dtype) -> None:
    there = Engine(copy.deepcopy(engine.model).to(device), engine.tokenizer, dtype=dtype, max_batch=4)
    assert engine.model.lm_head.weight.dtype == torch.float32, "the original stays as it was"
    wanted = requests(engine.tokenizer)
    got = there.generate(wanted)
    with torch.no_grad():
        for request, generation in zip(wanted, got, strict=True):
            logits_TV = there.model(torch.tensor([[*request.prompt_ids, *generation.ids]], device=device))[0].float()
            said = logits_TV[len(request.prompt_ids) - 1 : -1].log_softmax(-1).cpu()
            expected = said[torch.arange(len(generation.ids)), list(generation.ids)]
            gap = (torch.tensor(generation.logprobs) - expected).abs()
            # In bf16 a token may change experts where two of them tie: single log-probs move, most do not.
            assert gap.max() < 1e-4 if dtype == torch.float32 else gap.median() < 0.1


def test_parts_add_up_to_the_generation(engine: Engine) -> None:
    wanted = [replace(request, top_logprobs=2) for request in requests(engine.tokenizer)]
    batch = engine.batch()
    parts: dict[int, list[Part]] = {batch.add(request): [] for request in wanted}
    counts = dict.fromkeys(parts, 0)
    while batch.busy:
        complete = batch.step()
        for index, part in batch.parts(counts):
            parts[index].append(part)
            counts[index] += len(part.ids)
        for index, generation in complete:
            parts[index].append(generation.part(counts[index]))
            said = parts[index]
            assert sum((part.ids for part in said), ()) == generation.ids
            assert sum((part.logprobs for part in said), ()) == generation.logprobs
            assert sum((part.top_logprobs for part in said), ()) == generation.top_logprobs
            assert len(said) > 2 or len(generation.ids) < 3


def test_requests_join_and_leave_a_running_batch(engine: Engine) -> None:
    wanted = requests(engine.tokenizer)
    expected = engine.generate(wanted)
    batch = engine.batch()
    done = {}
    order = []
    pending = list(enumerate(wanted))
    while batch.busy or pending:
        if pending:
            order.append(pending.pop(0)[0])
            batch.add(wanted[order[-1]])
        done.update(batch.step())
    assert [done[i].ids for i in range(len(wanted))] == [e.ids for e in expected]


def test_dropped_requests_leave_the_others_alone(engine: Engine) -> None:
    wanted = requests(engine.tokenizer)
    expected = engine.generate(wanted)
    batch = engine.batch()
    for request in wanted:
        batch.add(request)
    done = dict(batch.step())
    batch.drop(2)
    batch.drop(5)
    while batch.busy:
        done.update(batch.step())
    for i, generation in done.items():
        assert generation.ids == expected[i].ids
    assert set(range(len(wanted))) - done.keys() <= {2, 5}


def test_prompts_that_continue_each_other_reuse_what_is_known(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout: every prompt is the last one, what was said, and something new."""
    fed: list[int] = []
    hidden = engine.model.hidden

    def counting(
        ids_BT: torch.Tensor, cache: LatentCache | None = None, lengths_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        if lengths_B is not None:
            fed.append(int(lengths_B.sum()))
        return hidden(ids_BT, cache=cache, lengths_B=lengths_B)

    monkeypatch.setattr(engine.model, "hidden", counting)
    batch = engine.batch()
    ids = prompt("a conversation with several turns that goes on", engine.tokenizer)
    for turn in range(4):
        request = Request(ids, max_tokens=6, temperature=1.0, seed=turn, grammar=False)
        fed.clear()
        batch.add(request)
        batch.add(replace(request, seed=turn + 100))
        done: dict[int, Generation] = {}
        while batch.busy:
            done.update(batch.step())
        for (_, got), seed in zip(sorted(done.items()), (turn, turn + 100), strict=True):
            fresh = reference_generate(engine.model, engine.tokenizer, replace(request, seed=seed))
            assert got.ids == fresh.ids
            assert got.logprobs == pytest.approx(fresh.logprobs, abs=1e-4)
        if turn:
            assert fed[0] < 2 * 30, "the prompt is computed from where it differs"
        ids = (*ids, *done[2 * turn].ids, *engine.tokenizer.encode(f"\nresult {turn}"))


def test_prompts_that_begin_alike_are_computed_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = engine.tokenizer
    start = prompt("the same long declarations for everybody " * 3, tokenizer)
    wanted = [
        Request((*start, *tokenizer.encode(f" task {n}")), max_tokens=4, temperature=1.0, seed=n, grammar=False)
        for n in (1, 22, 3, 3)
    ]
    expected = [reference_generate(engine.model, tokenizer, request) for request in wanted]
    computed: list[int] = []
    hidden = engine.model.hidden

    def counting(ids_BT: torch.Tensor, cache: LatentCache, lengths_B: torch.Tensor) -> torch.Tensor:
        computed.append(int(lengths_B.sum()))
        return hidden(ids_BT, cache=cache, lengths_B=lengths_B)

    monkeypatch.setattr(engine.model, "hidden", counting)
    got = engine.generate(wanted)
    assert [g.ids for g in got] == [e.ids for e in expected]
    assert len(start) > 64
    assert sum(computed) < 2 * len(start)


def test_prefixes_are_forgotten_beyond_their_number(engine: Engine) -> None:
    rows = Rows(engine.model, prefixes=2)
    prompts = [list(prompt(text, engine.tokenizer)) for text in ("first one", "second one", "third one")]
    for p in prompts:
        order, _, _ = rows.admit([p])
        assert order == [0]
        assert rows.release(0, p) == 0
    assert len(rows) == 0
    order, _, x_KD = rows.admit(prompts)
    assert sorted(order) == [0, 1, 2]
    with torch.no_grad():
        for row, k in enumerate(order):
            alone = engine.model.hidden(torch.tensor([prompts[k]]))[0, -1]
            assert torch.allclose(x_KD[row], alone, atol=1e-4)


def test_logprobs_are_the_models_own(engine: Engine) -> None:
    request = replace(requests(engine.tokenizer)[2], grammar=True)
    (got,) = engine.generate([request])
    ids = torch.tensor([[*request.prompt_ids, *got.ids]])
    with torch.no_grad():
        logprobs_TV = engine.model(ids)[0].log_softmax(-1)
    start = len(request.prompt_ids) - 1
    expected = [float(logprobs_TV[start + i, token]) for i, token in enumerate(got.ids)]
    assert got.logprobs == pytest.approx(expected, abs=1e-4)


def test_what_cannot_be_served_is_refused_before_anything_runs(engine: Engine) -> None:
    good = requests(engine.tokenizer)[0]
    for bad, error, words in [
        (replace(good, prompt_ids=good.prompt_ids * 30), ContextOverflow, "the context is 160"),
        (replace(good, prompt_ids=()), UserError, "empty"),
        (replace(good, prompt_ids=(10**6,)), UserError, "vocabulary"),
        (replace(good, max_tokens=0), UserError, "at least one"),
        *((replace(good, temperature=t), UserError, "temperature") for t in (-1.0, 1e-38, math.inf, math.nan)),
        *((replace(good, top_p=p), UserError, "top_p") for p in (0.0, 1.5, math.inf, math.nan)),
        (replace(good, tools=(ToolSpec("f", "", {"type": "string"}),)), UserError, "tool f"),
    ]:
        with pytest.raises(error, match=words):
            engine.generate([good, bad])


def test_generation_ends_with_the_context(engine: Engine) -> None:
    request = replace(requests(engine.tokenizer)[1], max_tokens=10_000)
    (got,) = engine.generate([request])
    assert got.finish_reason in ("stop", "length")
    if got.finish_reason == "length":
        assert len(request.prompt_ids) + len(got.ids) == 160


@pytest.mark.parametrize("seed", range(6))
def test_calls_of_a_random_model_are_well_formed(engine: Engine, seed: int) -> None:
    """Enumerated arguments bound the length, so every call comes to its end."""
    tokenizer = engine.tokenizer
    base = prompt("go", tokenizer)
    request = Request(base, max_tokens=120, temperature=1.0, seed=seed, tools=TOOLS, first_call_index=3)
    with torch.no_grad():
        before = engine.model.lm_head.weight.clone()
        # The section token wins at the first position; everything else stays random.
        engine.model.lm_head.weight[engine.grammar.section_begin] = engine.model.hidden(torch.tensor([base]))[0, -1]
    try:
        (got,) = engine.generate([request])
        # Forced ids pass through the model several at a time; neither ids nor log-probs may show it.
        alone = reference_generate(engine.model, tokenizer, request)
        assert got.ids == alone.ids
        assert got.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    finally:
        with torch.no_grad():
            engine.model.lm_head.weight.copy_(before)
    assert got.ids[0] == engine.grammar.section_begin
    completion = parse_completion(got.ids, tokenizer)
    for index, call in enumerate(completion.message.tool_calls, 3):
        assert call.id == f"functions.{call.name}:{index}"
        assert (call.name, call.arguments) in {
            ("ping", "{}"),
            ("pick", '{"way":"north"}'),
            ("pick", '{"way":"süd"}'),
        }
    assert (completion.malformed is None) or got.finish_reason == "length"
    assert completion.message.tool_calls


def test_noise_has_the_gumbel_distribution_and_is_keyed() -> None:
    noise = gumbel_noise(3, 5, 20_000)
    assert torch.equal(noise[:100], gumbel_noise(3, 5, 100))
    assert not torch.equal(noise, gumbel_noise(3, 6, 20_000))
    assert not torch.equal(noise, gumbel_noise(4, 5, 20_000))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.03)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.08)


def test_top_p_keeps_the_smallest_sufficient_set() -> None:
    logits = torch.tensor([0.1, 0.5, 0.3, 0.1]).log()
    assert keep_top_p(logits, 0.5).isfinite().tolist() == [False, True, False, False]
    assert keep_top_p(logits, 0.6).isfinite().tolist() == [False, True, True, False]
    assert keep_top_p(logits, 1e-9).isfinite().tolist() == [False, True, False, False]


def test_a_model_smaller_than_its_tokenizer_is_refused(tokenizer: Tokenizer) -> None:
    config = ModelConfig.preset(
        "test", vocab_size=tokenizer.vocab_size - 1, bos_token_id=None, eos_token_id=None, pad_token_id=None
    )
    with pytest.raises(UserError, match="belong together"):
        Engine(Transformer(config), tokenizer)


def test_filters_and_penalties_are_those_of_transformers() -> None:
    processors = pytest.importorskip("transformers.generation.logits_process")
    torch.manual_seed(0)
    logits = 3 * torch.randn(1, 200)
    for top_k in (1, 5, 199, 500):
        torch.testing.assert_close(keep_top_k(logits[0], top_k), processors.TopKLogitsWarper(top_k)(None, logits)[0])
    for min_p in (0.001, 0.1, 1.0):
        torch.testing.assert_close(keep_min_p(logits[0], min_p), processors.MinPLogitsWarper(min_p)(None, logits)[0])
    prompt_ids, ids = (3, 5, 5), [7, 7, 8, 3]
    request = Request(prompt_ids, max_tokens=9, repetition_penalty=1.4)
    said = torch.tensor([[*prompt_ids, *ids]])
    wanted = processors.RepetitionPenaltyLogitsProcessor(1.4)(said, logits)
    torch.testing.assert_close(adjust(logits[0], request, ids), wanted[0])


def test_presence_and_frequency_count_what_was_generated() -> None:
    request = Request(
        (3,), max_tokens=9, presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((1, 2.0), (7, -1.0))
    )
    assert adjust(torch.zeros(9), request, [7, 7, 8]).tolist() == [0, 2, 0, 0, 0, 0, 0, -2, -0.75]
    assert adjust(torch.zeros(9), request, []).tolist() == [0, 2, 0, 0, 0, 0, 0, -1, 0]


def test_the_grammar_has_the_last_word_over_a_bias(engine: Engine) -> None:
    tokenizer = engine.tokenizer
    section = tokenizer.id("<|tool_calls_section_begin|>")
    request = Request(prompt("hello", tokenizer), max_tokens=60, tools=(), logit_bias=((section, 1e6),))
    (silent,) = engine.generate([request])
    assert section not in silent.ids
    (calling,) = engine.generate([replace(request, tools=TOOLS, logit_bias=((section, 10**6),))])
    assert calling.ids[0] == section


@pytest.mark.parametrize("grammar", [True, False])
def test_nothing_stops_inside_a_call(engine: Engine, grammar: bool) -> None:
    """Here calls are what the bias makes of a model: the section's first id, then under the grammar a whole call."""
    tokenizer = engine.tokenizer
    section = tokenizer.id("<|tool_calls_section_begin|>")
    bias = ((section, 1e6),)
    everything = tuple(chr(c) for c in range(0x20, 0x7F))
    request = Request(prompt("hello", tokenizer), max_tokens=60, tools=TOOLS, logit_bias=bias, grammar=grammar)
    stopped = replace(request, stop=everything, stop_ids=tuple(range(tokenizer.base_size)))
    assert engine.generate([stopped]) == engine.generate([request])


@pytest.mark.parametrize("grammar", [True, False])
def test_stop_texts_end_a_generation_where_they_are_complete(engine: Engine, grammar: bool) -> None:
    tokenizer = engine.tokenizer
    base = Request(prompt("x", tokenizer), max_tokens=60, temperature=1.0, seed=7, grammar=grammar)
    (free,) = engine.generate([base])

    def runs(ids: Sequence[int]) -> list[str]:
        # A special id between two letters parts them, and what it is called is nothing that was said.
        parts = groupby(ids, lambda i: i < tokenizer.base_size)
        return [tokenizer.decode(list(run)) for plain, run in parts if plain]

    longest = max(runs(free.ids), key=len)
    stop = longest[len(longest) // 2 :][:3]
    assert len(stop) == 3
    for others in ((), ("never said",)):
        (stopped,) = engine.generate([replace(base, stop=(*others, stop))])
        assert (stopped.finish_reason, stopped.stop) == ("stop", stop)
        assert free.ids[: len(stopped.ids)] == stopped.ids
        assert stop in runs(stopped.ids)[-1] and not any(stop in run for run in runs(stopped.ids[:-1]))
    (ended,) = engine.generate([replace(base, stop_ids=(free.ids[4],))])
    assert ended.ids == free.ids[: free.ids.index(free.ids[4]) + 1] and ended.finish_reason == "stop"


@pytest.mark.parametrize(
    "changes",
    [
        {"top_k": -1}, {"top_logprobs": -1}, {"min_p": 1.1}, {"min_p": math.nan}, {"presence_penalty": math.inf},
        {"repetition_penalty": 0.0}, {"frequency_penalty": 1e39},
        {"top_k": 2.0}, {"stop": ("\ud800",)}, {"logit_bias": ((10**6, 1.0),)}, {"logit_bias": ((0, math.nan),)},
        {"stop": ("",)}, {"stop_ids": (-1,)},
    ],
    ids=str,
)  # fmt: skip
def test_sampling_numbers_that_make_no_sense(engine: Engine, changes: dict[str, object]) -> None:
    with pytest.raises(UserError, match="change it"):
        engine.check(replace(Request(prompt("x", engine.tokenizer), max_tokens=3), **changes))
