"""Kimi K2's released vocabulary: `tiktoken.model` (163,584 ranked pieces) and the names of 256 reserved ids behind it.

It becomes the same kind of backend as the project's own tokenizer, so everything that takes a tokenizer takes this one.
tiktoken joins the neighbours whose union has the lowest rank. A BPE with merges does the same when every way to cut a
piece into two others is a merge, in the order of the pieces' ranks.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from openk2.core import UserError

RESERVED = 256
RANKS = "tiktoken.model"
_CONFIG = "tokenizer_config.json"

_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]", r"\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]"
_LEAD, _SHORT = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    (
        r"[\p{Han}]+",
        f"{_LEAD}[{_UPPER}]*[{_LOWER}]+{_SHORT}",
        f"{_LEAD}[{_UPPER}]+[{_LOWER}]*{_SHORT}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""How text is split: Han apart, words with one sign before them, at most three digits, punctuation, blanks."""


def read_ranks(path: Path) -> dict[bytes, int]:
    """Pieces and their ranks, one `BASE64 RANK` a line. Raises UserError for anything else."""
    try:
        pairs = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(piece, validate=True): int(rank) for piece, rank in pairs}
    except OSError as e:
        raise UserError(f"could not read the vocabulary {path} ({e.strerror}): name a folder that has one") from e
    except (ValueError, binascii.Error) as e:
        raise UserError(f"{path} is damaged ({e}): copy it again") from e
    if sorted(ranks.values()) != list(range(len(ranks))) or not all(bytes([b]) in ranks for b in range(256)):
        raise UserError(f"{path} is damaged (ranks are missing): copy it again")
    return ranks


def read_backend(folder: Path) -> Backend:
    """The vocabulary of a K2 folder. Raises UserError naming the file that is missing or damaged."""
    ranks = read_ranks(folder / RANKS)
    letter = byte_letters()
    written = {piece: "".join(letter[byte] for byte in piece) for piece in ranks}
    merges = []
    for piece in sorted((p for p in ranks if len(p) > 1), key=ranks.__getitem__):
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in ranks and piece[i:] in ranks]
        merges += [(written[a], written[b]) for a, b in sorted(cuts, key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))]
    vocabulary = {written[piece]: rank for piece, rank in ranks.items()}
    # tiktoken takes a whole word that is a piece as it is, before any merge.
    backend = Backend(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in _names(folder / _CONFIG, len(ranks))]
    )
    return backend


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in a byte-level vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _names(path: Path, base: int) -> list[str]:
    """The reserved names in the order of their ids. Raises UserError for a file that is no tokenizer config."""
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        named = {int(number): entry["content"] for number, entry in raw["added_tokens_decoder"].items()}
    except OSError as e:
        raise UserError(f"could not read {path} ({e.strerror}): it has the names of the special tokens") from e
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise UserError(f"{path} is damaged ({type(e).__name__}): copy it again") from e
    return [named.get(number, f"<|reserved_token_{number}|>") for number in range(base, base + RESERVED)]
