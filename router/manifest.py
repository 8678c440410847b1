"""The manifest of a bundle: what is in the folder, what it was trained on, what it may be trusted with.

A frozen value with :meth:`Manifest.to_json` and :meth:`Manifest.from_json`; nothing here touches files. Prices are not
part of a bundle, since they change without retraining; ``reference_price`` is provenance (what the evaluation in
``metrics`` used) and what the Python API falls back on without a configuration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import TypeVar, cast

from router.certificate import Certificate, certificates_of
from router.domain import Policy, Price
from router.errors import BundleCorrupt, BundleSchemaUnknown, InvalidPolicy
from router.policy import check

SCHEMA = 1
#: No tokenizer makes more tokens of a character than it has bytes.
_LARGEST_RATE = 4.0
#: How the names of an encoder's own files begin.
_ENCODER_FILES = ("encoder.", "tokenizer.", "surface.")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Column:
    """One candidate of a bundle, in the order of the graphs' columns.

    Parameters
    ----------
    name : str
    input_tokens_per_character : float
        Input tokens of this candidate's tokenizer per character of text, above 0.
    knows_output_tokens : bool
        False where the data had no token counts; its predictions are then NaN.
    n_observed : int
        Labelled prompts it was fitted on.
    reference_price : Price or None
        See the module.
    parameters : Mapping of str to object
        What distinguishes it from other candidates on the same LLM (reasoning effort, token budget).
    """

    name: str
    input_tokens_per_character: float
    knows_output_tokens: bool
    n_observed: int
    reference_price: Price | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file of the bundle must be."""

    sha256: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``manifest.json`` says.

    Parameters
    ----------
    name, version : str
        Together the bundle's identity, shown in every decision as ``name@version``.
    created_at : str
        ISO 8601, UTC.
    candidates : tuple of Column
    encoder_tier : str
    feature_schema, dim : int
        Version and length of a feature row.
    presets : Mapping of str to Policy
        Operating points chosen on validation rows.
    metrics, training : Mapping
        Evaluation on test rows; fingerprint, configuration, versions and data (licence, attribution) of the training.
    files : Mapping of str to FileEntry
        Every file of the folder except the manifest itself.
    certificate : Mapping or None
        ``certificates``: a list of what :class:`router.certificate.Certificate` writes.
    tasks : tuple of str
        Kinds of task the bundle tells apart; empty where the data named none.
    """

    name: str
    version: str
    created_at: str
    candidates: tuple[Column, ...]
    encoder_tier: str
    feature_schema: int
    dim: int
    presets: Mapping[str, Policy]
    metrics: Mapping[str, object]
    training: Mapping[str, object]
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    certificate: Mapping[str, object] | None = None
    tasks: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def encoder_id(self) -> str:
        """Name the encoder by all that its features depend on: two bundles with the same id give the same features."""
        parts = [self.encoder_tier, str(self.feature_schema), str(self.dim)]
        parts += [f"{n} {f.sha256}" for n, f in sorted(self.files.items()) if n.startswith(_ENCODER_FILES)]
        return f"{self.encoder_tier}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:12]}"

    @property
    def certificates(self) -> dict[str, Certificate]:
        """By the preset each is about."""
        return certificates_of(self.certificate)

    @property
    def names(self) -> tuple[str, ...]:
        """Candidate names in column order."""
        return tuple(column.name for column in self.candidates)

    def to_json(self) -> bytes:
        """Write the manifest, keys in a fixed order; a number that is not finite becomes null."""
        document = {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "created_at": self.created_at,
            "candidates": [asdict(column) for column in self.candidates],
            "encoder": {"tier": self.encoder_tier, "feature_schema": self.feature_schema, "dim": self.dim},
            "tasks": list(self.tasks),
            "presets": {n: _policy_document(p) for n, p in self.presets.items()},
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
            "metrics": _plain(self.metrics),
            "training": _plain(self.training),
            "certificate": None if self.certificate is None else _plain(self.certificate),
        }
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest.

        Raises
        ------
        BundleSchemaUnknown
            Its ``schema`` is not one this program reads.
        BundleCorrupt
            Not JSON, or a field is absent or of the wrong kind; the message names it.
        """
        try:
            document = json.loads(data)
        except ValueError as exc:  # also UnicodeDecodeError
            raise BundleCorrupt(f"manifest.json is not JSON: {exc}") from exc
        root = _Fields(document, "manifest.json")
        if root.get("schema", int) != SCHEMA:
            raise BundleSchemaUnknown(f"manifest.json has schema {document['schema']!r}; this program reads {SCHEMA}")
        encoder = _Fields(root.get("encoder", dict), "manifest.json encoder")
        columns = tuple(_column(c, i) for i, c in enumerate(root.get("candidates", list)))
        names = [column.name for column in columns]
        if not names or len(set(names)) < len(names):
            raise BundleCorrupt("manifest.json: candidates must be at least one, each name once")
        certificate = None if document.get("certificate") is None else root.get("certificate", dict)
        certificates_of(certificate)
        tasks = root.get("tasks", list)
        if not all(isinstance(task, str) for task in tasks):
            raise BundleCorrupt(f"manifest.json: tasks must be a list of str, got {tasks!r}")
        return cls(
            name=root.get("name", str),
            version=root.get("version", str),
            created_at=root.get("created_at", str),
            candidates=columns,
            encoder_tier=encoder.get("tier", str),
            feature_schema=encoder.get("feature_schema", int),
            dim=encoder.get("dim", int),
            presets={n: _preset(n, p) for n, p in root.get("presets", dict).items()},
            metrics=root.get("metrics", dict),
            training=root.get("training", dict),
            files={n: _file(n, f) for n, f in root.get("files", dict).items()},
            certificate=certificate,
            tasks=tuple(tasks),
        )


def _policy_document(policy: Policy) -> dict[str, object]:
    document: dict[str, object] = {"kind": policy.kind, "value": policy.value}
    if policy.anchor is not None:
        document["anchor"] = policy.anchor
    if policy.margin is not None:
        document["margin"] = policy.margin
    return document


class _Fields:
    """Read the fields of a JSON object, or say which one is wrong."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise BundleCorrupt(f"{where} must be an object, got {type(value).__name__}")
        self._value, self._where = value, where

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def get(self, name: str, kind: type[_T]) -> _T:
        value: object = self._value.get(name)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BundleCorrupt(f"{self._where}: {name} must be {kind.__name__}, got {value!r}")
        return value


def _column(value: object, index: int) -> Column:
    where = f"manifest.json candidates[{index}]"
    fields = _Fields(value, where)
    rate = fields.get("input_tokens_per_character", float)
    if not 0 < rate <= _LARGEST_RATE:
        raise BundleCorrupt(
            f"{where}: input_tokens_per_character must be above 0 and at most {_LARGEST_RATE}, got {rate!r}"
        )
    price = cast(dict[str, object], value).get("reference_price")
    return Column(
        name=fields.get("name", str),
        input_tokens_per_character=rate,
        knows_output_tokens=fields.get("knows_output_tokens", bool),
        n_observed=fields.get("n_observed", int),
        reference_price=None if price is None else _price(price, where),
        parameters=fields.get("parameters", dict),
    )


def _price(value: object, where: str) -> Price:
    fields = _Fields(value, f"{where} reference_price")
    amounts = {name: fields.get(name, float) for name in ("input_usd_per_mtok", "output_usd_per_mtok")}
    for name, amount in amounts.items():
        if not (isfinite(amount) and amount >= 0):
            raise BundleCorrupt(f"{where} reference_price: {name} must be at least 0, got {amount!r}")
    return Price(*amounts.values())


def _preset(name: str, value: object) -> Policy:
    fields = _Fields(value, f"manifest.json presets.{name}")
    try:
        anchor = fields.get("anchor", str) if "anchor" in fields else None
        margin = fields.get("margin", float) if "margin" in fields else None
        return check(Policy(fields.get("kind", str), fields.get("value", float), name, anchor, margin))
    except InvalidPolicy as exc:
        raise BundleCorrupt(f"manifest.json presets.{name}: {exc}") from exc


def _file(name: str, value: object) -> FileEntry:
    fields = _Fields(value, f"manifest.json files.{name}")
    return FileEntry(fields.get("sha256", str), fields.get("n_bytes", int))


def _plain(value: object) -> object:
    """Make a value JSON can hold: numbers that are not finite become null, numpy scalars plain."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
