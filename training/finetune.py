"""Fine-tune a small transformer for routing: text in, one logit per candidate out.

All candidates are learned jointly from the mean of the last hidden states, with the answer's length and the prompt's
topic as side tasks. Word embeddings stay as they are and there is no dropout but before the heads: both measured, both
quicker. After every epoch a checkpoint is written, and a run that was cut off goes on from it. torch comes with the
``encoder`` extra and is imported inside. Entry point: :func:`finetune`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.minilm import GRAPH_FILE, TOKENIZER_FILE, token_ids
from training.encoder import graph_of, load_model, quantised
from training.estimators import Hints
from training.settings import FinetuneSettings

Matrix = NDArray[np.float64]
CHECKPOINTS = "finetune-{}.pt"  # by run, so that runs of other data, settings or seeds keep their own
_TOKENS_WEIGHT, _TOPICS_WEIGHT = 0.1, 0.2
_WARM_UP = 0.06  # share of the steps until the learning rate is whole
_POOL_BATCHES = 25  # sorted by length together, so that little is padded
_LENGTH_STEP = 16  # lengths are rounded up to this, so that few shapes occur


def finetune(
    texts: Sequence[str],
    y: Matrix,
    hints: Hints,
    settings: FinetuneSettings,
    seed: int,
    tell: Callable[[str], None] = lambda stage: None,
) -> dict[str, bytes]:
    """Fine-tune and export.

    Parameters
    ----------
    texts : sequence of n str
        Training prompts only.
    y : ndarray of shape (n, m), in [0, 1]
        Quality; NaN where unobserved.
    hints : Hints
        Side tasks.
    settings : FinetuneSettings
    seed : int
    tell : callable, optional
        Told the name of each epoch as it begins.

    Returns
    -------
    dict of str to bytes
        ``encoder.onnx``, whose output is the logits, and ``tokenizer.json``.

    Raises
    ------
    ExtraMissing
        torch or sentence-transformers is not installed.
    TrainingError
        The model cannot be loaded.
    """
    original = load_model(settings.model)
    import torch

    torch.manual_seed(seed)
    tokenizer = original.tokenizer.backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = [token_ids(tokenizer, text) for text in texts]
    network = _network(original[0].auto_model, y, hints, settings.dropout)
    optimiser = _optimiser(network, settings)
    # Where checkpoints are kept, and how the graph is written in the end, do not change what is learned.
    learned = {key: value for key, value in asdict(settings).items() if key not in ("checkpoint_dir", "int8")}
    run = hashlib.sha256(json.dumps([learned, seed, ids, y.tolist()]).encode()).hexdigest()
    checkpoint = Path(settings.checkpoint_dir) / CHECKPOINTS.format(run[:16]) if settings.checkpoint_dir else None
    done = _resume(checkpoint, run, network, optimiser)

    targets = _Targets(y, hints)
    n_steps = settings.epochs * -(-len(ids) // settings.batch)
    step = done * (n_steps // settings.epochs)
    for epoch in range(done, settings.epochs):
        tell(f"fine-tune, epoch {epoch + 1} of {settings.epochs}")
        torch.manual_seed(1_000 * seed + epoch)  # so that a resumed run drops out what a whole one would
        network.train()
        for rows in _batches(ids, settings.batch, np.random.default_rng([seed, epoch])):
            step += 1
            rate = min(1.0, step / (_WARM_UP * n_steps)) * max(0.0, 1 - (step - 1) / n_steps)
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * rate
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
                said = network.heads_of(*_padded([ids[i] for i in rows]))
            optimiser.zero_grad()
            targets.loss(said, rows).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
        _keep(checkpoint, run, epoch + 1, network, optimiser)

    graph = graph_of(network.eval())
    return {GRAPH_FILE: quantised(graph) if settings.int8 else graph, TOKENIZER_FILE: tokenizer.to_str().encode()}


def _network(transformer: Any, y: Matrix, hints: Hints, dropout: float) -> Any:
    """Return a torch module (input_ids, attention_mask) → logits of quality."""
    import torch

    n_topics = 0 if hints.topics is None else hints.topics.shape[1]
    n_lengths = 0 if hints.log_tokens is None else hints.log_tokens.shape[1]
    widths = [y.shape[1], n_lengths, n_topics]

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer
            self.dropout = torch.nn.Dropout(dropout)
            self.heads = torch.nn.Linear(transformer.config.hidden_size, sum(widths))

        def heads_of(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
            mask = attention_mask[..., None].float()
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            return self.heads(self.dropout(pooled)).float().split(widths, dim=1)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.heads_of(input_ids, attention_mask)[0]

    network = Network()
    for module in transformer.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad = "embeddings" not in name and "pooler" not in name
    with torch.no_grad():
        network.heads.weight.normal_(std=0.02)
        network.heads.bias.zero_()
        share = np.clip(np.nanmean(y, axis=0), 0.01, 0.99)
        network.heads.bias[: y.shape[1]] = torch.tensor(np.log(share / (1 - share)))
    return network


def _optimiser(network: Any, settings: FinetuneSettings) -> Any:
    import torch

    learned = [p for p in network.transformer.parameters() if p.requires_grad]
    groups = [
        ([p for p in learned if p.ndim > 1], settings.learning_rate, settings.weight_decay),
        ([p for p in learned if p.ndim == 1], settings.learning_rate, 0.0),
        (list(network.heads.parameters()), settings.head_learning_rate, settings.weight_decay),
    ]
    return torch.optim.AdamW(
        [{"params": ps, "lr": lr, "initial_lr": lr, "weight_decay": decay} for ps, lr, decay in groups if ps]
    )


class _Targets:
    """What the heads shall say, as tensors, and how far off they are."""

    def __init__(self, y: Matrix, hints: Hints) -> None:
        import torch

        self._quality = torch.tensor(y, dtype=torch.float32)
        self._lengths = None if hints.log_tokens is None else torch.tensor(hints.log_tokens)
        self._topics = None if hints.topics is None else torch.tensor(hints.topics.argmax(axis=1))

    def loss(self, said: Any, rows: NDArray[np.intp]) -> Any:
        from torch.nn import functional

        quality, lengths, topics = said
        target = self._quality[rows]
        seen = ~target.isnan()
        loss = functional.binary_cross_entropy_with_logits(quality[seen], target[seen])
        if self._lengths is not None:
            target = self._lengths[rows]
            seen = ~target.isnan()
            if seen.any():
                loss = loss + _TOKENS_WEIGHT * functional.mse_loss(lengths[seen], target[seen])
        if self._topics is not None:
            loss = loss + _TOPICS_WEIGHT * functional.cross_entropy(topics, self._topics[rows])
        return loss


def _batches(ids: Sequence[Sequence[int]], size: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Yield rows of about equal length together, in random order."""
    lengths = np.array([len(row) for row in ids])
    order = rng.permutation(len(ids))
    for start in range(0, len(ids), size * _POOL_BATCHES):
        pool = order[start : start + size * _POOL_BATCHES]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        cut = [pool[at : at + size] for at in range(0, len(pool), size)]
        for i in rng.permutation(len(cut)):
            yield cut[i]


def _padded(ids: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    import torch

    width = -(-max(len(row) for row in ids) // _LENGTH_STEP) * _LENGTH_STEP
    tokens, mask = (torch.zeros((len(ids), width), dtype=torch.long) for _ in range(2))
    for i, row in enumerate(ids):
        tokens[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return tokens, mask


def _keep(checkpoint: Path | None, run: str, done: int, network: Any, optimiser: Any) -> None:
    import torch

    if checkpoint is None:
        return
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    scratch = checkpoint.with_suffix(".part")
    torch.save(
        {"run": run, "done": done, "network": network.state_dict(), "optimiser": optimiser.state_dict()}, scratch
    )
    scratch.replace(checkpoint)


def _resume(checkpoint: Path | None, run: str, network: Any, optimiser: Any) -> int:
    """Take up the checkpoint of the same run, if there is one, and return how many epochs are done."""
    import torch

    if checkpoint is None or not checkpoint.is_file():
        return 0
    kept = torch.load(checkpoint, weights_only=True)
    if kept["run"] != run:
        return 0
    network.load_state_dict(kept["network"])
    optimiser.load_state_dict(kept["optimiser"])
    return int(kept["done"])
