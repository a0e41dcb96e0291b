"""Nearest neighbours of clips, and a map of them in two dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..plots import INSTALL

LAYOUTS = ("auto", "tsne", "pca")
FEW_CLIPS = 12  # t-SNE needs at least so many clips
PERPLEXITY = 30.0
PCA_SIZE = 50  # what t-SNE starts from


def directions(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings (n, d) minus their mean, normalised to length 1.

    Embeddings of one model have a large common part, which would hide their differences. The mean
    of one or two embeddings is not subtracted, because nothing would be left.
    """
    if len(embeddings) > 2:
        embeddings = embeddings - embeddings.mean(0)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.maximum(lengths, 1e-12)


def nearest(unit: NDArray[np.float32], count: int) -> list[list[tuple[int, float]]]:
    """The most similar others of each clip, best first: (index, cosine similarity).

    Args:
        unit: (n, d) embeddings of length 1.
        count: number of neighbours, at most n - 1.
    """
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, : min(count, len(unit) - 1)]
    return [
        [(int(j), float(row[j])) for j in best] for row, best in zip(similarity, order, strict=True)
    ]


def place(unit: NDArray[np.float32], layout: str = "auto", seed: int = 0) -> NDArray[np.float32]:
    """Coordinates (n, 2) in [0, 1] by t-SNE or principal components.

    Args:
        unit: (n, d) embeddings of length 1.
        layout: "tsne", "pca", or "auto" for t-SNE with at least 12 clips, else PCA.
        seed: random seed of t-SNE.

    Raises:
        ValueError: the layout is unknown.
        ImportError: scikit-learn is not installed.
    """
    points = np.zeros((len(unit), 2), np.float32)
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {list(LAYOUTS)}, got {layout!r}")
    if float(np.ptp(unit, axis=0).max()) > 1e-6:  # t-SNE crashes on identical clips
        found = _tsne(unit, seed) if _uses_tsne(len(unit), layout) else _pca(unit, 2)
        points[:, : found.shape[1]] = found
    low, high = points.min(0), points.max(0)
    spread = np.where(high - low > 1e-6, high - low, 1)
    return np.where(high - low > 1e-6, (points - low) / spread, 0.5)


def layout_name(clips: int, layout: str) -> str:
    """Name of the method that `place` uses, for people."""
    return "t-SNE" if _uses_tsne(clips, layout) else "PCA"


def _uses_tsne(clips: int, layout: str) -> bool:
    return clips > 3 and (layout == "tsne" or (layout == "auto" and clips >= FEW_CLIPS))


def _pca(unit: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise ImportError(f"maps need scikit-learn: {INSTALL}") from error
    return PCA(min(size, *unit.shape), random_state=0).fit_transform(unit)


def _tsne(unit: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    reduced = _pca(unit, PCA_SIZE)  # also says what to install
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
