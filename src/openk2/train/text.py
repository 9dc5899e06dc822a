"""From corpus text to a tokenizer and to token shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openk2.chat import Tokenizer
from openk2.chat.tokenizer import EOS
from openk2.core import Demonstration, UserError, compact_json
from openk2.data.shards import ShardWriter
from openk2.train.progress import Bar
from openk2.train.recipe import TokenizerConfig, TokensConfig
from openk2.worlds.families import get_family

BATCH_DOCUMENTS = 256


def read_documents(path: Path) -> list[str]:
    """The texts of a corpus file in an order that mixes its sources and depends only on their names.

    Raises UserError if the file is missing or damaged.
    """
    documents = []
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                key = hashlib.sha256(f"{entry['source']}\0{entry['path']}".encode()).digest()
                documents.append((key, str(entry["text"])))
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"the corpus file {path} cannot be read ({e}): delete {path.parent} to make it again") from e
    return [text for _, text in sorted(documents)]


def demonstration_text(shown: Demonstration) -> Iterator[str]:
    """All text of a conversation as the model will see it: declarations, messages, calls."""
    yield compact_json([tool.to_openai() for tool in shown.tools])
    for message in shown.messages:
        yield message.content
        for call in message.tool_calls:
            yield call.id
            yield call.arguments


def train_tokenizer(
    config: TokenizerConfig, corpus: Path, families: Sequence[str], first_seed: int, bar: Bar
) -> Tokenizer:
    """Learn a vocabulary from the first `corpus_bytes` of the mixed corpus and from demonstrations of the families."""
    total = config.episodes * len(families)

    def texts() -> Iterator[str]:
        size = 0
        for text in read_documents(corpus):
            if size >= config.corpus_bytes:
                break
            size += len(text.encode())
            yield text
        for number, name in enumerate(families):
            family = get_family(name)
            for i in range(config.episodes):
                bar(number * config.episodes + i, total, name)
                yield from demonstration_text(family.demonstrate(family.sample("train", first_seed + i)))

    return Tokenizer.train(texts(), config.vocab_size)


def write_token_shards(
    config: TokensConfig, corpus: Path, tokenizer_folder: Path, folder: Path, bar: Bar
) -> dict[str, Any]:
    """Encode documents, each followed by [EOS], until there are enough tokens; returns how many were written."""
    tokenizer = Tokenizer.load(tokenizer_folder)
    end = tokenizer.id(EOS)
    results: dict[str, Any] = {}
    for part, wanted in (("valid", config.valid), ("train", config.train)):
        documents = read_documents(corpus / f"{part}.jsonl")
        with ShardWriter(folder / part) as writer:
            for start in range(0, len(documents), BATCH_DOCUMENTS):
                for ids in tokenizer.encode_batch(documents[start : start + BATCH_DOCUMENTS]):
                    if writer.tokens < wanted:
                        writer.add([*ids, end])
                bar(min(writer.tokens, wanted), wanted, part)
                if writer.tokens >= wanted:
                    break
            results[f"{part}_tokens"] = writer.tokens
            results[f"{part}_documents"] = writer.documents
    return results
