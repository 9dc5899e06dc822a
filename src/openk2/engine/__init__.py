"""Generation: batching over the latent cache, sampling, and the grammar of tool calls."""

from openk2.engine.generate import Batch, Engine
from openk2.engine.grammar import Grammar
from openk2.engine.reference import reference_generate
from openk2.engine.sequence import Generation, NoRoom, Part, Request, TopLogprobs
from openk2.engine.worker import Worker

__all__ = [
    "Batch",
    "Engine",
    "Generation",
    "Grammar",
    "NoRoom",
    "Part",
    "Request",
    "TopLogprobs",
    "Worker",
    "reference_generate",
]
