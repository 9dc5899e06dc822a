"""From corpus text to a tokenizer and to token shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openk2.chat import Tokenizer
from openk2.chat.tokenizer import EOS
from openk2.core import Demonstration, compact_json
from openk2.core.families import demonstrate, sample_task
from openk2.core.progress import Bar
from openk2.data.corpus import read_documents
from openk2.data.shards import ShardWriter
from openk2.train.recipe import TokenizerConfig, TokensConfig

BATCH_DOCUMENTS = 256


def demonstration_text(shown: Demonstration) -> Iterator[str]:
    """All text of a conversation as the model will see it: declarations, messages, calls."""
    yield compact_json([tool.to_openai() for tool in shown.tools])
    for message in shown.messages:
        yield message.role
        yield message.content
        for call in message.tool_calls:
            yield call.id
            yield call.arguments


def train_tokenizer(
    config: TokenizerConfig, corpus: Path, families: Sequence[str], first_seed: int, bar: Bar
) -> Tokenizer:
    """Learn a vocabulary from the first `corpus_bytes` of the corpus and from demonstrations of the families."""
    total = config.episodes * len(families)

    def texts() -> Iterator[str]:
        size = 0
        for document in read_documents(corpus):
            if size >= config.corpus_bytes:
                break
            size += len(document.text.encode())
            yield document.text
        for number, name in enumerate(families):
            for i in range(config.episodes):
                bar(number * config.episodes + i, total, name)
                yield from demonstration_text(demonstrate(name, sample_task(name, "train", first_seed + i)))

    return Tokenizer.train(texts(), config.vocab_size)


def write_token_shards(
    config: TokensConfig, corpus: Path, tokenizer_folder: Path, folder: Path, bar: Bar
) -> dict[str, Any]:
    """Encode documents, each followed by [EOS], until there are enough tokens; returns how many were written."""
    tokenizer = Tokenizer.load(tokenizer_folder)
    end = tokenizer.id(EOS)
    results: dict[str, Any] = {}
    for part, wanted in (("valid", config.valid), ("train", config.train)):
        documents = [document.text for document in read_documents(corpus / f"{part}.jsonl")]
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
