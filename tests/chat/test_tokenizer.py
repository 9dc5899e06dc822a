"""The tokenizer: lossless, regular splits, K2's layout of reserved ids, errors that name the file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.chat import Tokenizer
from openk2.chat.tokenizer import MIN_VOCAB_SIZE, PHRASES
from openk2.core import ToolSpec, UserError, compact_json


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(["<|im_end|>", "[PAD]", " ", "a"])).map("".join)))
def test_text_survives_and_never_gives_reserved_ids(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.base_size for i in ids)
    assert tokenizer.encode_batch([text, text]) == [ids, ids]


def test_reserved_ids_are_laid_out_as_in_k2(tokenizer: Tokenizer) -> None:
    base = tokenizer.vocab_size - 64
    k2 = {"[BOS]": 163584, "[EOS]": 163585, "<|im_end|>": 163586, "<|im_user|>": 163587, "<|im_assistant|>": 163588}
    k2 |= {"<|im_system|>": 163594, "<|tool_calls_section_begin|>": 163595, "<|tool_calls_section_end|>": 163596}
    k2 |= {"<|tool_call_begin|>": 163597, "<|tool_call_argument_begin|>": 163598, "<|tool_call_end|>": 163599}
    k2 |= {"<|im_middle|>": 163601}
    for name, identifier in k2.items():
        assert tokenizer.id(name) == base + identifier - 163584
    assert tokenizer.base_size == base
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (base, base + 2, base + 63)
    assert list(tokenizer.specials.values()) == list(range(base, tokenizer.vocab_size))
    with pytest.raises(UserError, match="no special token"):
        tokenizer.id("<|nothing|>")


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([i]) for i in tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("1234", ["1", "2", "3", "4"]),
        ("__", ["_", "_"]),
        ("\n\n", ["\n\n"]),
    ],
)
def test_digits_and_underscores_stand_alone(tokenizer: Tokenizer, text: str, whole: list[str]) -> None:
    assert pieces(tokenizer, text) == whole


@pytest.mark.parametrize("word", ["bill", "Ropin", "temperature", "Ünal"])
def test_a_word_has_the_same_pieces_wherever_it_stands(tokenizer: Tokenizer, word: str) -> None:
    expected = tokenizer.encode(word)
    for template in ("the {} of", '{{"{}":1}}', "x_{}_y", "df['{}']", "{}\n", "\t{}.", "3{}4"):
        ids = tokenizer.encode(template.format(word))
        assert any(ids[i : i + len(expected)] == expected for i in range(len(ids)))


def test_no_piece_crosses_a_boundary(tokenizer: Tokenizer) -> None:
    def kinds(text: str) -> set[str]:
        return {
            "d"
            if c.isdigit()
            else "l"
            if c.isalpha()
            else "_"
            if c == "_"
            else "n"
            if c in "\r\n"
            else "s"
            if c in " \t"
            else "p"
            for c in text
        }

    for i in range(tokenizer.base_size):
        piece = tokenizer.decode([i])
        if "\ufffd" not in piece and piece not in PHRASES:
            assert len(kinds(piece)) == 1, piece
            assert len(piece) == 1 or not kinds(piece) & {"d", "_"}, piece


def test_the_skeleton_of_declarations_is_phrases(tokenizer: Tokenizer) -> None:
    properties = {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "string", "enum": ["d", "e"]}}
    with_parameters = ToolSpec("x", "Do.", {"type": "object", "properties": properties, "required": ["a", "b"]})
    plain = ToolSpec("y", "Do", {"type": "object", "properties": {}})
    found = pieces(tokenizer, compact_json([plain.to_openai(), with_parameters.to_openai(), plain.to_openai()]))
    skeleton = [piece for piece in found if piece in PHRASES]
    # Three tools: three openings, descriptions and parameter lists; a type for a and b, an enum, and what is required.
    assert len(skeleton) == 3 * 3 + 2 + 1 + 1
    assert {piece for piece in found if piece not in PHRASES and len(piece) > 4} == set()


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_is_one_piece_and_changes_nothing_around_it(tokenizer: Tokenizer, phrase: str) -> None:
    assert len(tokenizer.encode(phrase)) == 1
    word = "\n" if phrase[0].isalpha() else "kettle"  # inside a word it is none
    around = tokenizer.encode(word) + tokenizer.encode(phrase) + tokenizer.encode(word)
    assert tokenizer.encode(f"{word}{phrase}{word}") == around


def test_decode_names_reserved_ids(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.eos_id, *tokenizer.encode("a"), tokenizer.pad_id]
    assert tokenizer.decode(ids) == "<|im_end|>a[PAD]"
    for bad in ([-1], [tokenizer.vocab_size]):
        with pytest.raises(UserError, match="token ids must be in"):
            tokenizer.decode(bad)


def test_training_is_deterministic(tokenizer: Tokenizer) -> None:
    texts = [Path(__file__).read_text()] * 3
    assert Tokenizer.train(iter(texts), 420).json() == Tokenizer.train(texts, 420).json()


def test_save_and_load_keep_everything(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.json() == tokenizer.json() == Tokenizer.from_json(tokenizer.json()).json()
    assert again.specials == tokenizer.specials
    assert again.encode("<|im_end|>") == tokenizer.encode("<|im_end|>")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_bad_training_input_is_refused() -> None:
    with pytest.raises(UserError, match=f"need {MIN_VOCAB_SIZE}"):
        Tokenizer.train(["text"], MIN_VOCAB_SIZE - 1)
    with pytest.raises(UserError, match="too small for vocab_size 4096: it gives 3"):
        Tokenizer.train(["a little text"], 4096)
    with pytest.raises(UserError, match="lone surrogate"):
        Tokenizer.train(["bad \ud800"], 400)


def test_bad_files_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
    path = tmp_path / "tokenizer.json"
    text = tokenizer.json()
    foreign = json.loads(text) | {"added_tokens": []}
    for damaged in (text[: len(text) // 2], "{}", "[1]", json.dumps(foreign)):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"tokenizer\.json"):
            Tokenizer.load(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_reserved_names_are_unique(tokenizer: Tokenizer) -> None:
    names: Sequence[str] = list(tokenizer.specials)
    assert len(set(names)) == 64
    assert all(a != b for a, b in itertools.pairwise(names))
