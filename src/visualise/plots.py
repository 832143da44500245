"""Curves and matrices as PNG files. Matplotlib is imported on the first plot, without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.files import atomic_path
from .draw import colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..engine.history import History

NAMED_CURVES = 20  # more classes than this are drawn as thin grey lines without names


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of its own (inches, 110 dots each): no pyplot, no global state, no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Figure, path: str | Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def _tint(index: int) -> tuple[float, float, float]:
    red, green, blue = colour(index)
    return red / 255, green / 255, blue / 255


def _plain(text: str) -> str:
    """Names as they are: a $ would open matplotlib's formulas."""
    return text.replace("$", r"\$")


def plot_history(
    columns: Mapping[str, Sequence[float]], path: str | Path, title: str, ylabel: str
) -> None:
    """Curves over epochs 1, 2, ... as a PNG.

    columns: name -> one value an epoch; NaN or None where there was none (the curve goes on
    over the gap). Raises UserError when the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _figure(8, 5)
    for index, (name, values) in enumerate(columns.items(), start=1):
        y = np.array([np.nan if v is None else v for v in values], dtype=float)
        x = np.arange(1, len(y) + 1)
        known = np.isfinite(y)
        axes.plot(
            x[known],
            y[known],
            label=_plain(name),
            color=_tint(2 if len(columns) == 1 else index),
            linewidth=2,
            marker="o" if known.sum() <= 40 else None,
            markersize=4,
        )
    axes.set(title=_plain(title), xlabel="epoch", ylabel=_plain(ylabel))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def plot_paired(
    values: Mapping[str, Sequence[float]], path: str | Path, title: str, ylabel: str
) -> None:
    """Settings side by side: a thin line for each repetition (the i-th value of each setting), a
    dot for the mean with a bar of one standard deviation. UserError when it cannot be written."""
    figure, axes = _figure(1.6 + 1.2 * len(values), 5)
    table = np.array(list(values.values()), dtype=float)  # [settings, repetitions]
    places = np.arange(len(values))
    for i, line in enumerate(table.T):
        axes.plot(places, line, color="0.65", linewidth=1, marker="o", markersize=3, zorder=1)
        axes.annotate(str(i + 1), (places[0], line[0]), (-8, 0), textcoords="offset points",
                      color="0.5", fontsize=8, ha="right", va="center")  # fmt: skip
    spread = table.std(axis=1, ddof=1) if table.shape[1] > 1 else np.zeros(len(values))
    axes.errorbar(places, table.mean(axis=1), spread, color=_tint(2), fmt="o", capsize=4, zorder=2)
    axes.set(title=_plain(title), ylabel=_plain(ylabel), xlim=(-0.5, len(values) - 0.5))
    axes.set_xticks(places, [_plain(name) for name in values], rotation=20)
    axes.grid(alpha=0.3, axis="y")
    _save(figure, path)


def plot_columns(
    rows: Sequence[Mapping[str, float]],
    names: Sequence[str],
    path: str | Path,
    title: str,
    ylabel: str,
) -> None:
    """``plot_history`` of those of the names that some row (an epoch) has; else nothing."""
    there = [name for name in names if any(name in row for row in rows)]
    if there:
        columns = {name: [row.get(name, np.nan) for row in rows] for name in there}
        plot_history(columns, path, title, ylabel)


def plot_losses(history: History, path: str | Path) -> None:
    """The losses of training, epoch by epoch."""
    names = [name for name in history.columns() if name.startswith("loss")]
    plot_columns(history.rows, names, path, "Training loss", "loss")


def plot_pr_curves(
    recall: np.ndarray,
    precision: Mapping[str, np.ndarray],
    path: str | Path,
    scores: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Precision over recall for each class, and their mean, as a PNG.

    recall: [R] in [0, 1]; precision: class name -> [R] in [0, 1] (NaN or below 0: no truth, the
    class is left out of the mean). The number beside a name is the area under its curve. scores:
    class name -> [R], the score by which that recall is reached; written on up to 8 curves.
    """
    figure, axes = _figure(9, 6)
    curves = {name: np.asarray(values, dtype=float) for name, values in precision.items()}
    curves = {name: np.where(values < 0, np.nan, values) for name, values in curves.items()}
    known = {name: values for name, values in curves.items() if np.isfinite(values).any()}
    named = len(known) <= NAMED_CURVES
    for index, (name, values) in enumerate(known.items(), start=1):
        style: dict[str, Any] = {"color": "0.6", "linewidth": 0.7, "alpha": 0.6}
        if named:
            label = f"{_plain(name)} {np.nanmean(values):.3f}"
            style = {"color": _tint(index), "linewidth": 1.5, "label": label}
        axes.plot(recall, values, **style)
        reached = scores[name] if scores and len(known) <= 8 else np.zeros(0)
        for score in (0.9, 0.7, 0.5, 0.3, 0.1) if len(reached) else ():
            at = int(((reached >= score) & (values > 0)).sum()) - 1
            if at >= 0:
                axes.plot(recall[at], values[at], ".", color=_tint(index))
                axes.annotate(f"{score}", (recall[at], values[at]), fontsize=7)
    if len(known) > 1:
        mean = np.nanmean(np.stack(list(known.values())), axis=0)
        label = f"mean of {len(known)} classes {np.nanmean(mean):.3f}"
        axes.plot(recall, mean, color="black", linewidth=3, label=label)
    if known:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    axes.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    axes.grid(alpha=0.3)
    _save(figure, path)


def plot_score_curves(
    curves: Mapping[str, np.ndarray], best: Mapping[str, Mapping[str, float]], path: str | Path
) -> None:
    """Precision, recall and F1 over the least score that counts, as a PNG of three parts.

    curves: class name -> [3, 101] over scores 0, .01 .. 1; best: name -> threshold and F1, marked
    with a dot ("all": of the mean, a line).
    """
    figure, _ = _figure(14, 5)
    figure.clear()
    parts = figure.subplots(1, 3, sharex=True, sharey=True)
    over = np.linspace(0, 1, 101)
    few = len(curves) <= NAMED_CURVES
    for index, (name, three) in enumerate(curves.items(), start=1):
        ink: Any = _tint(index) if few else "0.6"
        label = f"{_plain(name)} {best[name]['F1']:.2f} at {best[name]['threshold']:.2f}"
        for axes, values in zip(parts, three):
            axes.plot(over, values, color=ink, linewidth=1.2, label=label if few else None)
        parts[2].plot(best[name]["threshold"], best[name]["F1"], "o", color=ink, markersize=5)
    for axes, title in zip(parts, ("precision", "recall", "F1")):
        if "all" in best:
            at = best["all"]["threshold"]
            label = f"mean F1 {best['all']['F1']:.2f} at {at:.2f}"
            axes.axvline(at, color="black", linestyle="--", linewidth=1, label=label)
        axes.set(title=title, xlabel="least score (--threshold)", xlim=(0, 1), ylim=(0, 1.03))
        axes.grid(alpha=0.3)
    if curves:
        parts[2].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    _save(figure, path)


def plot_confusion(
    matrix: np.ndarray,
    names: Sequence[str],
    path: str | Path,
    *,
    percent: bool = False,
    title: str = "Confusion",
) -> None:
    """A confusion matrix as a PNG, shaded by the share of each row, counts written in.

    matrix: counts [K, K], rows the truth, columns the prediction; names: K names in its order;
    percent: those of its row are written instead (millions of pixels tell nobody anything). From
    31 classes on, the figures are left out (the shade tells), and above 200 the names, too: with
    ImageNet's thousand the picture would take 15 GB.
    """
    counts = np.asarray(matrix)
    size = len(names)
    assert counts.shape == (size, size)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    cell = 0.75 if size <= 10 else 0.5 if size <= 30 else 0.2
    named = size <= 200
    side = max(4.0, cell * size) if named else 12.0
    font = 10 if size <= 10 else 8 if size <= 30 else 7
    figure, axes = _figure(side + 2.5, side + 2.0)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    ticks = range(size if named else 0)
    labels = [_plain(name if len(name) <= 24 else name[:22] + "..") for name in names[: len(ticks)]]
    axes.set_xticks(ticks, labels, rotation=90 if size > 6 else 30, fontsize=font)
    if size <= 6:
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, labels, fontsize=font)
    if named:
        axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="0.9", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
    title = f"{title}, % of the true class" if percent else title
    axes.set(xlabel="predicted", ylabel="truth", title=title)
    if size <= 30:
        for row, column in zip(*np.nonzero(counts)):
            ink = "white" if shares[row, column] > 0.55 else "black"
            share = shares[row, column]
            text = f"{100 * share:.1f}" if percent else f"{counts[row, column]}"
            axes.text(
                column, row, text, ha="center", va="center", color=ink, fontsize=max(5, font - 1)
            )
    _save(figure, path)


def plot_reliability(
    confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray, ece: float, path: str | Path
) -> None:
    """A reliability diagram as a PNG: accuracy over confidence, against the diagonal.

    confidence, accuracy: the mean of each bin [B] in [0, 1], NaN where it is empty; counts: [B]
    predictions; ece: the expected calibration error.
    """
    figure, axes = _figure(6.5, 6)
    edges = np.linspace(0, 1, len(counts) + 1)
    known = counts > 0
    middles, width = (edges[:-1] + edges[1:])[known] / 2, edges[1]
    axes.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1, label="calibrated")
    axes.bar(middles, accuracy[known], width, color=_tint(2), edgecolor="white", label="accuracy")
    axes.plot(confidence[known], accuracy[known], "o", color=_tint(1), markersize=5, label="bins")
    share = counts[known] / max(1, counts.sum())
    axes.bar(middles, share, width * 0.5, color="0.25", alpha=0.5, label="share of predictions")
    axes.set(title=f"Calibration (ECE {ece:.3f})", xlabel="confidence", ylabel="accuracy")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper left", fontsize=9)
    _save(figure, path)
