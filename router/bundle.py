"""A bundle on disk: write it whole, or load it only if everything about it is right.

::

    models/<name>/<version>/manifest.json   written last; names every other file with its sha256
                            encoder.* tokenizer.json  quality.onnx  output_tokens.onnx  parity.npz  CARD.md

Files are read once, checked, and used from memory: nothing can be swapped between check and use. The self-test runs
the texts in ``parity.npz`` through encoder and predictors and compares with what was computed at export. Entry points
are :func:`load` and :func:`write`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.arrays import read_arrays, write_arrays
from router.domain import Floats, Predictions
from router.errors import BundleCorrupt, BundleMissing, BundleSchemaUnknown, BundleUnsafe, ParityFailed
from router.features import FEATURE_SCHEMA, Encoder, encoder_of
from router.manifest import FileEntry, Manifest
from router.predictors import INPUT, QUALITY_OUTPUTS, TOKENS_OUTPUTS, Predictor
from router.recent import Recent

MANIFEST, PARITY = "manifest.json", "parity.npz"
MAX_FILE_BYTES = 160 * 1024 * 1024
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

#: What the self-test compares, with the absolute and relative differences that other processors may cause.
_TOLERANCES: Mapping[str, tuple[float, float]] = {
    "features": (1e-4, 1e-3),
    **dict.fromkeys(QUALITY_OUTPUTS, (1e-3, 0.0)),
    **dict.fromkeys(TOKENS_OUTPUTS, (1e-2, 1e-2)),
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded bundle: made only by :func:`load`, so it has passed every check."""

    manifest: Manifest
    encoder: Encoder
    predictor: Predictor
    encoder_id: str = field(init=False, compare=False)
    _tokens_per_character: Floats = field(init=False, repr=False, compare=False)
    _without_tokens: NDArray[np.bool_] | None = field(init=False, repr=False, compare=False)
    _recent: Recent[dict[str, Floats]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay out once what every prediction needs."""
        columns = self.manifest.candidates
        rates = np.array([column.input_tokens_per_character for column in columns], np.float32)
        unknown = np.array([not column.knows_output_tokens for column in columns])
        object.__setattr__(self, "encoder_id", self.manifest.encoder_id)
        object.__setattr__(self, "_tokens_per_character", rates)
        object.__setattr__(self, "_without_tokens", unknown if unknown.any() else None)
        # Not a method of this bundle: it would hold what holds it, and a bundle that was swapped out would stay.
        object.__setattr__(
            self, "_recent", Recent(partial(_kept_outputs, self.encoder, self.predictor, self._without_tokens))
        )

    def predict(self, texts: Sequence[str]) -> Predictions:
        """Predict quality and tokens of n texts for the bundle's own candidates.

        Parameters
        ----------
        texts : sequence of n str

        Returns
        -------
        Predictions
            Columns in the manifest's order; ``input_tokens`` estimated from the length of the text alone.
        """
        outputs = self._computed(texts)
        lengths = np.array([len(text) for text in texts], np.float32)
        return Predictions(
            candidates=self.manifest.names,
            quality=outputs["quality"],
            quality_low=outputs["quality_low"],
            quality_high=outputs["quality_high"],
            input_tokens=lengths[:, None] * self._tokens_per_character,
            output_tokens=outputs["output_tokens"],
            output_tokens_p90=outputs["output_tokens_p90"],
        )

    def outputs(self, texts: Sequence[str]) -> dict[str, Floats]:
        """Return what the graphs give for n texts, (n, m) each and tasks (n, K); NaN for token counts not known.

        Of a single text, as serving asks, it may be what was computed when the text came before; not to be changed;
        and the features that the graphs read are among it, (1, dim).
        """
        return dict(self._recent.of(texts[0])) if len(texts) == 1 else self._computed(texts)

    def _computed(self, texts: Sequence[str]) -> dict[str, Floats]:
        return _predicted(self.encoder.encode(texts), self.predictor, self._without_tokens)


def load(directory: str | os.PathLike[str]) -> Bundle:
    """Load a bundle, or say exactly why not.

    Parameters
    ----------
    directory : path-like
        The folder that holds ``manifest.json``.

    Returns
    -------
    Bundle

    Raises
    ------
    BundleMissing
        No folder, no manifest, or a file it names is absent.
    BundleUnsafe
        A symbolic link, a file the manifest does not name, a file too large, external data, foreign operators.
    BundleSchemaUnknown
        A manifest, feature schema or encoder tier this program does not know.
    BundleCorrupt
        A hash, size, dimension or weight is not what it must be.
    ParityFailed
        The self-test gives other numbers than at export.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise BundleMissing(f"there is no bundle at {folder}: {_no_folder(folder)}")
    manifest = Manifest.from_json(_read(folder / MANIFEST, MAX_MANIFEST_BYTES))
    if manifest.feature_schema != FEATURE_SCHEMA:
        raise BundleSchemaUnknown(
            f"{folder} was trained on feature schema {manifest.feature_schema}; this program computes {FEATURE_SCHEMA}"
        )
    files = _checked_files(folder, manifest)
    encoder = encoder_of(manifest.encoder_tier, files)
    if encoder.dim != manifest.dim:
        raise BundleCorrupt(f"the encoder gives {encoder.dim} features; the manifest says {manifest.dim}")
    bundle = Bundle(manifest, encoder, Predictor(files, manifest.dim, len(manifest.candidates), len(manifest.tasks)))
    if PARITY not in files:
        raise BundleMissing(f"the bundle has no {PARITY}")
    _self_test(bundle, files[PARITY])
    return bundle


def write(
    directory: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes], *, overwrite: bool = False
) -> Manifest:
    """Write a bundle as a whole: it is there complete and loadable, or it is not there.

    Parameters
    ----------
    directory : path-like
        Where it shall be; its parents are made.
    manifest : Manifest
        Its ``files`` are filled in here.
    files : Mapping of str to bytes
        Plain file names to contents.
    overwrite : bool, default=False
        Replace what is there.

    Returns
    -------
    Manifest
        As written.

    Raises
    ------
    FileExistsError
        Something is there and ``overwrite`` is False.
    BundleError
        What was written does not load; nothing is left behind and what was there stays.
    """
    folder = Path(directory)
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder} exists; choose another version or ask to overwrite it")
    entries = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
    manifest = replace(manifest, files=entries)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, data in (*files.items(), (MANIFEST, manifest.to_json())):
            with (scratch / name).open("xb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        scratch.chmod(0o755)
        load(scratch)
        _swap(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def parity(encoder: Encoder, predictor: Predictor, texts: Sequence[str]) -> bytes:
    """Compute the contents of ``parity.npz`` for some texts.

    Parameters
    ----------
    encoder : Encoder
    predictor : Predictor
    texts : sequence of str
        Written by the project, never rows of the data: they are published with the bundle.

    Returns
    -------
    bytes
    """
    features = encoder.encode(texts)
    return write_arrays({"texts": np.array(texts), "features": features, **predictor.predict(features)})


def _predicted(features: Floats, predictor: Predictor, without_tokens: NDArray[np.bool_] | None) -> dict[str, Floats]:
    outputs = predictor.predict(features)
    if without_tokens is not None:
        for name in TOKENS_OUTPUTS:
            outputs[name] = np.where(without_tokens, np.float32("nan"), outputs[name])
    return outputs


def _kept_outputs(
    encoder: Encoder, predictor: Predictor, without_tokens: NDArray[np.bool_] | None, text: str
) -> dict[str, Floats]:
    features = encoder.encode([text])
    outputs = _predicted(features, predictor, without_tokens)
    outputs[INPUT] = features
    for values in outputs.values():
        values.setflags(write=False)
    return outputs


def _swap(scratch: Path, folder: Path) -> None:
    """Put ``scratch`` in the place of ``folder``; a folder cannot be replaced in one step, so move the old aside."""
    if not folder.exists():
        scratch.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(aside / folder.name)
    try:
        scratch.rename(folder)
    except OSError:
        (aside / folder.name).rename(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _no_folder(path: Path) -> str:
    """Say why a path is no folder."""
    if path.is_symlink() and not path.exists():
        return f"the link leads to {os.readlink(path)}, which is not there"
    return "not a folder" if path.exists() else "no such folder"


def _read(path: Path, max_bytes: int) -> bytes:
    if path.is_symlink():
        raise BundleUnsafe(f"{path} is a symbolic link")
    if not path.is_file():
        raise BundleMissing(f"{path} is absent")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise BundleUnsafe(f"{path} is larger than {max_bytes:,} bytes")
    return data


def _checked_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    present = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    if extra := present - set(manifest.files):
        raise BundleUnsafe(f"{folder} holds files its manifest does not name: {', '.join(sorted(extra))}")
    files: dict[str, bytes] = {}
    for name, entry in manifest.files.items():
        if Path(name).name != name or name in ("", ".", "..", MANIFEST) or "\\" in name:
            raise BundleUnsafe(f"manifest.json names {name!r}, which is not a plain file name")
        data = _read(folder / name, MAX_FILE_BYTES)
        if len(data) != entry.n_bytes:
            raise BundleCorrupt(f"{name} has {len(data):,} bytes; the manifest says {entry.n_bytes:,}")
        found = hashlib.sha256(data).hexdigest()
        if found != entry.sha256:
            raise BundleCorrupt(f"{name} has sha256 {found}; the manifest says {entry.sha256}")
        files[name] = data
    return files


def _self_test(bundle: Bundle, data: bytes) -> None:
    expected = read_arrays(data, PARITY)
    if missing := {"texts", *_TOLERANCES} - set(expected):
        raise BundleCorrupt(f"{PARITY} lacks {', '.join(sorted(missing))}")
    if expected["texts"].ndim != 1 or not len(expected["texts"]) or expected["texts"].dtype.kind != "U":
        raise BundleCorrupt(f"{PARITY}: texts must be a list of at least one text")
    features = bundle.encoder.encode([str(text) for text in expected["texts"]])
    computed: dict[str, Floats] = {"features": features, **bundle.predictor.predict(features)}
    for name, (absolute, relative) in _TOLERANCES.items():
        now, then = computed[name], expected[name].astype(np.float32)
        if now.shape != then.shape:
            raise ParityFailed(f"self-test: {name} has shape {now.shape}, {then.shape} at export")
        if not np.isfinite(now).all():
            raise ParityFailed(f"self-test: {name} is not finite")
        difference = np.abs(now - then)
        if (difference > absolute + relative * np.abs(then)).any():
            raise ParityFailed(f"self-test: {name} differs from export by up to {difference.max():.3g}")
