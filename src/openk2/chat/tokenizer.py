"""The tokenizer: a small byte-level BPE with K2's reserved tokens behind it.

Ids `0 .. vocab_size-65` are BPE pieces; the last 64 are reserved and laid out as in K2, whose reserved block starts at
163584: the special that is 163584 + i there is `vocab_size - 64 + i` here. Text is split before BPE so that a word has
the same pieces in a request, in JSON and in code: each digit alone, each run of letters, of spaces, of newlines, of
punctuation, and each underscore alone. Only a few fixed phrases, the skeleton of a tool declaration above all, are one
piece: they are most of a prompt's characters and say nothing.

A special token is never the result of encoding text: user text that contains "<|im_end|>" becomes ordinary pieces.
`load` also reads K2's own vocabulary, whose reserved block has 256 ids (see `k2_vocabulary`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from openk2.chat.k2_vocabulary import RANKS, byte_letters, read_backend
from openk2.core import NANO_SYSTEM, UserError
from openk2.core.runs import write_text

RESERVED = 64
BYTES = 256

BOS = "[BOS]"
EOS = "[EOS]"
IM_END = "<|im_end|>"
IM_USER = "<|im_user|>"
IM_ASSISTANT = "<|im_assistant|>"
IM_SYSTEM = "<|im_system|>"
IM_MIDDLE = "<|im_middle|>"
SECTION_BEGIN = "<|tool_calls_section_begin|>"
SECTION_END = "<|tool_calls_section_end|>"
CALL_BEGIN = "<|tool_call_begin|>"
ARGUMENT_BEGIN = "<|tool_call_argument_begin|>"
CALL_END = "<|tool_call_end|>"
UNK = "[UNK]"
PAD = "[PAD]"

# The chat format's fixed words that are ordinary text.
TOOL_DECLARE = "tool_declare"
RETURN_OF = "## Return of "
ID_PREFIX = "functions."

# Offset in the reserved block -> name (the offsets of K2's released vocabulary).
_NAMED = {
    0: BOS,
    1: EOS,
    2: IM_END,
    3: IM_USER,
    4: IM_ASSISTANT,
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    9: "[EOT]",
    10: IM_SYSTEM,
    11: SECTION_BEGIN,
    12: SECTION_END,
    13: CALL_BEGIN,
    14: ARGUMENT_BEGIN,
    15: CALL_END,
    17: IM_MIDDLE,
    62: UNK,
    63: PAD,
}

LAST_NAMED = 17
"""Up to this offset names are where K2 has them; the last two of the block have changed places between releases."""

# `\n` inside a JSON string is a piece of its own: else the word after it would lose its pieces to `nword`.
_SPLIT = r"\\[nrt]|\p{N}|\p{L}[\p{L}\p{M}]*|[ \t]+|[\r\n]+|_|(?:(?!\\[nrt])[^\p{L}\p{N}\s_])+|\s+"


DEFAULT_SYSTEM = "You are Kimi, an AI assistant created by Moonshot AI."
"""K2's own."""


def _phrases() -> tuple[str, ...]:
    """What is one piece although it holds several words: JSON between the words of a declaration, and fixed lines."""
    tool = '{"type":"function","function":{"description":"'
    parameters = '","parameters":{"type":"object","properties":'
    typed, required = '":{"type":"', '"required":["'
    scalars = ("string", "integer", "number", "boolean")
    return (
        *(f"{end}{tool}" for end in ("[", '"]}}},', "{}}}},", '"}}}},')),
        *(f'{dot}","name":"' for dot in ("", ".")),
        *(f"{parameters}{brace}" for brace in ("", '{"')),
        *(f'{typed}{scalar}"{end}' for scalar in scalars for end in ('},"', f"}}}},{required}")),
        *(f'{typed}{scalar}","description":"' for scalar in scalars),
        f'{typed}string","enum":["',
        f'{typed}array","items":{{"type":"',
        *(f"{end},{required}" for end in ('"}}', '"]}}')),
        TOOL_DECLARE,
        f"{RETURN_OF}{ID_PREFIX}",
        NANO_SYSTEM,
    )


# Longest first: the first alternative that matches wins.
PHRASES = tuple(sorted(_phrases(), key=lambda phrase: (-len(phrase), phrase)))
_ANY_PHRASE = "|".join(map(re.escape, PHRASES))
_BY_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
MIN_VOCAB_SIZE = BYTES + len(PHRASES) + RESERVED
# Rules of dashes and deep indentation would otherwise take hundreds of places in a small vocabulary.
_LONGEST_PIECE = 16
_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def reserved_names(vocab_size: int) -> list[str]:
    """Names of the 64 reserved tokens, in id order."""
    base = vocab_size - RESERVED
    return [_NAMED.get(i, f"<|reserved_token_{base + i}|>") for i in range(RESERVED)]


def load_backend(folder: Path) -> tuple[Backend, str]:
    """The tokenizer of a folder, of whatever model, and the file that it is from: tokenizer.json, or K2's
    tiktoken.model where there is none. Raises UserError if neither is there, or if it is damaged."""
    path = folder / "tokenizer.json"
    if not path.exists() and (folder / RANKS).exists():
        return read_backend(folder), str(folder / RANKS)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"could not read the tokenizer {path} ({e}): name a folder that has one") from e
    return _parsed(text, str(path)), str(path)


def _parsed(text: str, source: str) -> Backend:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UserError(f"{source} is damaged (not JSON): restore it or train the tokenizer again") from e
    try:
        return Backend.from_str(text)
    except BaseException as e:  # bare Exception, or a panic of the backend that is no Exception
        if not isinstance(e, Exception) and type(e).__name__ != "PanicException":
            raise
        raise UserError(f"{source} is not a tokenizer file ({e}): restore it or train it again") from e


class Tokenizer:
    """Text to ids and back. Make one with `train` or `load`."""

    def __init__(self, backend: Backend, *, source: str = "tokenizer") -> None:
        """Wrap a backend. Raises UserError if its reserved tokens are not where K2's layout wants them."""
        vocab_size = backend.get_vocab_size(with_added_tokens=True)
        base = backend.token_to_id(BOS)
        if base is None:
            raise UserError(f"{source} is not a K2 tokenizer ({BOS} is missing): train one or pick another")
        ids = {name: backend.token_to_id(name) for name in _NAMED.values()}
        wrong = [name for i, name in _NAMED.items() if i <= LAST_NAMED and ids[name] != base + i]
        wrong += [name for name in (UNK, PAD) if (ids[name] or 0) < base]
        if wrong:
            raise UserError(f"{source} is not a K2 tokenizer ({wrong[0]} is not at its id): train one or pick another")
        # Set on every load: the backend does not keep it in its file.
        backend.encode_special_tokens = True
        self._backend = backend
        self._byte_of = {letter: byte for byte, letter in byte_letters().items()}
        self.vocab_size: int = vocab_size
        self.base_size: int = base
        """How many BPE pieces there are; reserved ids start here."""
        self.specials: Mapping[str, int] = MappingProxyType(
            {str(backend.id_to_token(i)): i for i in range(base, vocab_size)}
        )
        self.of_nano = len(self.encode(NANO_SYSTEM)) == 1
        """Whether the vocabulary is of nano's kind. Such models have learned its own system message where tools are
        declared, declarations in one order of keys, and results under the names of their tools."""

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 4096) -> Tokenizer:
        """Learn the pieces from `texts`; the same texts give the same tokenizer.

        Raises UserError if `vocab_size` is under MIN_VOCAB_SIZE (bytes, phrases and reserved), or if the text is too
        small for it.
        """
        if vocab_size < MIN_VOCAB_SIZE:
            raise UserError(
                f"vocab_size {vocab_size} is too small: 256 bytes, {len(PHRASES)} phrases and 64 reserved tokens "
                f"need {MIN_VOCAB_SIZE}"
            )
        backend = Backend(models.BPE())
        # The phrases are left out here, or short ones would become ordinary pieces too.
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_ANY_PHRASE), "removed"),
                pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
                _BY_BYTES,
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - RESERVED - len(PHRASES),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            max_token_length=_LONGEST_PIECE,
            show_progress=False,
        )
        backend.train_from_iterator(_checked(texts), trainer)
        got = backend.get_vocab_size() + len(PHRASES)
        if got != vocab_size - RESERVED:
            raise UserError(
                f"the text is too small for vocab_size {vocab_size}: it gives {got + RESERVED} at most; "
                "use more text or a smaller vocab_size"
            )
        backend = _with_phrases(backend)
        backend.add_special_tokens(
            [AddedToken(name, special=True, normalized=False) for name in reserved_names(vocab_size)]
        )
        return cls(backend)

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """Read `folder`/tokenizer.json, or K2's tiktoken.model where there is none.

        Raises UserError if neither is there, or if it is damaged or of another kind.
        """
        backend, source = load_backend(Path(folder))
        return cls(backend, source=source)

    @classmethod
    def from_json(cls, text: str, *, source: str = "the tokenizer text") -> Tokenizer:
        """From the content of a tokenizer.json; the inverse of `json`."""
        return cls(_parsed(text, source), source=source)

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja, as transformers reads them."""
        for name, text in self.files().items():
            write_text(Path(folder) / name, text)

    def files(self) -> dict[str, str]:
        """The names and contents of what `save` writes."""
        return dict(zip(_FILES, (self.json(), self._config(), chat_template(self.of_nano)), strict=True))

    def json(self) -> str:
        """The content of tokenizer.json."""
        return self._backend.to_str()

    def _config(self) -> str:
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": IM_END,
            "unk_token": UNK,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
        }
        return json.dumps(config, indent=2) + "\n"

    def default_system(self, *, with_tools: bool) -> str:
        """What a conversation begins with that has no system message of its own. Nano's own speaks of tools."""
        return NANO_SYSTEM if self.of_nano and with_tools else DEFAULT_SYSTEM

    @property
    def bos_id(self) -> int:
        return self.specials[BOS]

    @property
    def eos_id(self) -> int:
        """The id that ends an assistant turn: `<|im_end|>`."""
        return self.specials[IM_END]

    @property
    def pad_id(self) -> int:
        return self.specials[PAD]

    def id(self, special_name: str) -> int:
        """The id of a reserved token. Raises UserError if there is none of that name."""
        try:
            return self.specials[special_name]
        except KeyError:
            raise UserError(f"there is no special token {special_name!r}") from None

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, never a reserved one. Raises UserError if the text has lone surrogates."""
        _require_utf8(text)
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, on all cores."""
        for text in texts:
            _require_utf8(text)
        return [e.ids for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def piece(self, token: int) -> bytes:
        """The bytes that an id below `base_size` stands for, which need not be whole characters."""
        letters: str = self._backend.id_to_token(token) or ""
        return bytes(self._byte_of[letter] for letter in letters)

    def shown(self, token: int) -> bytes:
        """As `piece`, and the name of a reserved id."""
        return self.piece(token) if token < self.base_size else self.decode([token]).encode()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`. Reserved tokens appear by name.

        Bytes that are not UTF-8 become U+FFFD. Raises UserError for ids outside the vocabulary.
        """
        ids = list(ids)
        if ids and (min(ids) < 0 or max(ids) >= self.vocab_size):
            raise UserError(f"token ids must be in 0..{self.vocab_size - 1}, got {min(ids)}..{max(ids)}")
        text: str = self._backend.decode(ids, skip_special_tokens=False)
        return text


def _with_phrases(backend: Backend) -> Backend:
    """The same tokenizer with PHRASES behind its pieces; no merges lead to them, so they are taken whole or never."""
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(f"{_ANY_PHRASE}|{_SPLIT}"), "isolated"), _BY_BYTES]
    )
    content = json.loads(backend.to_str())
    model = content["model"]
    for phrase in PHRASES:
        ((written, _),) = _BY_BYTES.pre_tokenize_str(phrase)
        model["vocab"][written] = len(model["vocab"])
    model["ignore_merges"] = True
    return Backend.from_str(json.dumps(content))


def chat_template(of_nano: bool) -> str:
    """The chat template for transformers, equal to `openk2.chat.render`: K2's, or that of nano's kind."""
    text = (resources.files("openk2.chat") / "chat_template.jinja").read_text(encoding="utf-8")
    return text.replace("set of_nano = false", f"set of_nano = {str(of_nano).lower()}")


@lru_cache(maxsize=1)
def nano_tokenizer() -> Tokenizer:
    """The embedded nano's tokenizer."""
    with resources.as_file(resources.files("openk2") / "weights" / "nano") as folder:
        return Tokenizer.load(folder)


def _require_utf8(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise UserError(
            f"the text has a lone surrogate (U+{ord(text[e.start]):04X} at character {e.start}): not valid Unicode"
        ) from None


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        _require_utf8(text)
        yield text
