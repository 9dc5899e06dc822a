"""Kimi K2's released vocabulary: the ids of every text are tiktoken's own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.chat import Tokenizer, parse, render
from openk2.chat.k2_vocabulary import read_ranks
from openk2.core import Message, ToolCall, UserError

tiktoken = pytest.importorskip("tiktoken")

# As K2's tokenization_kimi.py has it.
PUBLISHED = "|".join(
    [
        r"[\p{Han}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


@pytest.fixture(scope="module")
def folder(data_pack: Path) -> Path:
    return data_pack / "k2_tokenizer"


@pytest.fixture(scope="module")
def k2(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Callable[[str], list[int]]:
    encoding = tiktoken.Encoding(
        "k2", pat_str=PUBLISHED, mergeable_ranks=read_ranks(folder / "tiktoken.model"), special_tokens={}
    )
    return lambda text: list(encoding.encode(text, disallowed_special=()))


def test_the_layout(k2: Tokenizer) -> None:
    assert (k2.vocab_size, k2.base_size, k2.bos_id, k2.eos_id, k2.pad_id) == (163840, 163584, 163584, 163586, 163839)
    assert k2.id("<|im_middle|>") == 163601 and k2.id("<|reserved_token_163700|>") == 163700


TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="aA' \n\t1.s漢字éß_{}", max_size=40),
    st.lists(
        st.sampled_from(["I'll", " don't", "HTTPServer", "漢字かな", "12345", "  ", "\r\n", "naïve", '{"a":1}'])
    ).map("".join),
)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_ids_equal_those_of_tiktoken(k2: Tokenizer, theirs: Callable[[str], list[int]], text: str) -> None:
    ids = k2.encode(text)
    assert ids == theirs(text)
    assert k2.decode(ids) == text


MIXED = (
    "中文English混合テキスト, 漢字々かな한국어 Ünïcödé ǅungla ʰʲ MixedCASEWords HTTPServer's I'LL we've 12345 ٣٤٥ "
    '3.14e-10 x_y->z()  {"a":\t[1,2]}\r\n\n   indented\n\t\ttabs   \u3000\u00a0 e\u0301 '
    "👩\u200d👩\u200d👧 ½ Ⅷ --- !!!\n\n end  "
)


@pytest.mark.parametrize("start", range(0, len(MIXED), 7))
def test_ids_of_mixed_text_equal_those_of_tiktoken(
    k2: Tokenizer, theirs: Callable[[str], list[int]], start: int
) -> None:
    assert k2.encode(MIXED[start:]) == theirs(MIXED[start:])


def test_ids_of_long_texts_equal_those_of_tiktoken(k2: Tokenizer, theirs: Callable[[str], list[int]]) -> None:
    here = Path(__file__)
    texts = [path.read_text(encoding="utf-8") for path in sorted(here.parent.glob("*.py"))]
    rng = random.Random(0)
    # Words of random letters are where the order of merges shows.
    texts.append(
        " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 20))) for _ in range(20_000))
    )
    for text in texts:
        assert k2.encode(text) == theirs(text)


def test_special_strings_in_text_stay_text(k2: Tokenizer) -> None:
    ids = k2.encode("<|im_end|>[BOS]<|tool_call_begin|>")
    assert max(ids) < k2.base_size and k2.decode(ids) == "<|im_end|>[BOS]<|tool_call_begin|>"


def test_a_conversation_goes_there_and_back(k2: Tokenizer) -> None:
    call = ToolCall("functions.add:0", "add", '{"a":1}')
    said = [
        Message("system", "Be kind."),
        Message("user", "1+1? <|im_end|>"),
        Message("assistant", "", tool_calls=(call,)),
    ]
    rendered = render(said, (), tokenizer=k2)
    assert rendered.ids[0] == 163594
    assert [m.content for m in parse(rendered.ids, tokenizer=k2).messages] == [m.content for m in said]


def test_it_can_be_saved_and_transformers_reads_it(k2: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    k2.save(tmp_path)
    text = "Hello, wörld! 漢字 1234567 don't"
    assert Tokenizer.load(tmp_path).encode(text) == k2.encode(text)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).encode(text, add_special_tokens=False) == k2.encode(
        text
    )


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tiktoken.model", b"AAA\n", "tiktoken.model is damaged"),
        ("tiktoken.model", b"!! 1\n", "tiktoken.model is damaged"),
        ("tiktoken.model", b"AA== 0\n", "ranks are missing"),
        ("tokenizer_config.json", b"{", "tokenizer_config.json is damaged"),
        ("tokenizer_config.json", b"[]", "tokenizer_config.json is damaged"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {}}', "is missing"),
        ("tokenizer_config.json", None, "could not read"),
    ],
)
def test_damaged_files(tmp_path: Path, file: str, content: bytes | None, words: str) -> None:
    import base64

    ranks = "".join(f"{base64.b64encode(bytes([b])).decode()} {b}\n" for b in range(256))
    (tmp_path / "tiktoken.model").write_text(ranks)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {}}))
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)
