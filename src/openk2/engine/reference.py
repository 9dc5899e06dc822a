"""Generation without cache and without batching, the whole sequence again for every id: what tests hold `Engine` to.

Shapes: T time, V vocabulary.
"""

from __future__ import annotations

import torch

from openk2.chat import Tokenizer
from openk2.engine.grammar import Grammar
from openk2.engine.sampling import choose
from openk2.engine.sequence import Generation, Request, Sequence, check
from openk2.model.transformer import Transformer


@torch.no_grad()
def reference_generate(model: Transformer, tokenizer: Tokenizer, request: Request) -> Generation:
    """Complete one request. Raises as `Engine.generate`."""
    config = model.config
    check(request, vocab_size=config.vocab_size, context=config.max_position_embeddings)
    sequence = Sequence(0, request, Grammar(tokenizer, config.vocab_size), config.max_position_embeddings)
    device = next(model.parameters()).device
    while not sequence.complete:
        ids_1T = torch.tensor([[*request.prompt_ids, *sequence.ids]], device=device)
        (token,) = choose(model(ids_1T)[:, -1], [sequence])
        sequence.accept(token)
    return sequence.generation()
