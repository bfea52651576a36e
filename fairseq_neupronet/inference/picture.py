"""One picture of what a model hears in a clip. Needs matplotlib."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairseq_neupronet.audio.features import band_centres
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file

_DOTS_PER_INCH = 120
_MOST_BARS = 20
_TICKS = (100, 200, 500, 1000, 2000, 5000, 10000, 20000)  # Hz
_CLOSEST_TICKS = 0.08  # share of the axis
_BLUE, _ORANGE = "#2b6cb0", "#c05621"


@dataclass(frozen=True)
class Heard:
    """What the picture shows. Letters: N samples, M mel bands, F frames, K classes, G clips of the group.

    Attributes:
        title: of the picture.
        start: seconds at which the clip begins in its file.
        waveform: (N,) at the recipe's rate.
        spectrogram: (M, F), before padding.
        recipe: of the spectrogram.
        classes: K names.
        probabilities: (K,).
        attention: (G,), the clip's own first; None where it has no group, or its pooling no weights.
    """

    title: str
    start: float
    waveform: np.ndarray
    spectrogram: np.ndarray
    recipe: FeatureRecipe
    classes: list[str]
    probabilities: np.ndarray
    attention: np.ndarray | None


def draw(heard: Heard, path: str | Path) -> None:
    """Write the picture of :func:`render` into a file, whose ending says the format (png, svg, pdf).

    Raises:
        InputError: as :func:`render`, or the file cannot be written.
    """
    picture = render(heard, Path(path).suffix.lstrip(".") or "png", str(path))
    with atomic_file(path, "wb") as file:
        file.write(picture)


def render(heard: Heard, form: str = "png", name: str = "the picture", probabilities: bool = True) -> bytes:
    """Draw waveform, spectrogram in seconds and hertz, class probabilities, attention in the group.

    Args:
        heard: what to show.
        form: png, svg or pdf.
        name: of the picture, for the sentence of an error.
        probabilities: whether those of the classes are drawn.

    Returns:
        The picture's file.

    Raises:
        InputError: matplotlib is missing, or the format is not one of its.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("pictures need matplotlib; install it with pip install 'fairseq-neupronet[show]'") from None
    if form not in FigureCanvasAgg.get_supported_filetypes():
        raise InputError(f"{name}: {form!r} is no format of pictures; end the name in .png, .svg or .pdf")
    grouped = heard.attention is not None and len(heard.attention) > 1
    heights = (1, 2, 2) if probabilities or grouped else (1, 2)
    figure = Figure(figsize=(10, 1.4 * sum(heights)), dpi=_DOTS_PER_INCH, layout="constrained")
    figure.suptitle(_shortened(heard.title))
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    waveform = figure.add_subplot(grid[0, :])
    _draw_waveform(waveform, heard)
    _draw_spectrogram(figure, figure.add_subplot(grid[1, :], sharex=waveform), heard)
    if probabilities:
        _draw_probabilities(figure.add_subplot(grid[2, 0] if grouped else grid[2, :]), heard)
    if grouped:
        _draw_attention(figure.add_subplot(grid[2, 1] if probabilities else grid[2, :]), heard.attention)
    file = io.BytesIO()
    figure.savefig(file, format=form)
    return file.getvalue()


def _shortened(title: str, length: int = 100) -> str:
    # A dollar sign would start a formula.
    return (title if len(title) <= length else f"…{title[1 - length :]}").replace("$", r"\$")


def _draw_waveform(axes, heard: Heard) -> None:
    times = heard.start + np.arange(len(heard.waveform)) / heard.recipe.sample_rate
    axes.plot(times, heard.waveform, color=_BLUE, linewidth=0.5)
    axes.set_ylabel("amplitude")
    axes.set_xlim(times[0], times[-1] + 1 / heard.recipe.sample_rate)
    axes.tick_params(labelbottom=False)


def _draw_spectrogram(figure, axes, heard: Heard) -> None:
    n_mels, n_frames = heard.spectrogram.shape
    hop = heard.recipe.hop_length / heard.recipe.sample_rate
    # kaldi's frames begin at their time, librosa's are centred there.
    window = (heard.recipe.frame_length_ms or 0) / 1000
    edges = heard.start + window / 2 + (np.arange(n_frames + 1) - 0.5) * hop
    image = axes.pcolormesh(edges, np.arange(n_mels + 1) - 0.5, heard.spectrogram, cmap="magma", rasterized=True)
    centres = band_centres(heard.recipe)
    within = [hertz for hertz in _TICKS if centres[0] <= hertz <= centres[-1]]
    places = np.interp(within, centres, np.arange(n_mels))
    # Low ones are close together on a mel axis; labels that would touch are left out.
    far = np.diff(places, append=np.inf) > n_mels * _CLOSEST_TICKS
    axes.set_yticks(places[far], [f"{hertz:,}" for hertz, kept in zip(within, far, strict=True) if kept])
    axes.set_ylabel("frequency (Hz)")
    axes.set_xlabel("time (s)")
    figure.colorbar(image, ax=axes, pad=0.01, label="feature value")


def _draw_probabilities(axes, heard: Heard) -> None:
    order = np.argsort(-heard.probabilities)[:_MOST_BARS]
    bars = axes.barh([heard.classes[number] for number in order], heard.probabilities[order], color=_BLUE)
    axes.bar_label(bars, fmt="%.3f", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("probability")


def _draw_attention(axes, attention: np.ndarray) -> None:
    shown = min(len(attention), _MOST_BARS)
    names = ["this clip", *(f"enrolled {number}" for number in range(1, shown))]
    bars = axes.barh(names, attention[:shown], color=[_ORANGE] + [_BLUE] * (shown - 1))
    axes.bar_label(bars, fmt="%.3f", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(min(0.0, float(attention.min()) * 1.2), max(float(attention.max()), 1e-6) * 1.25)
    rest = f" (the first {shown} of {len(attention)})" if shown < len(attention) else ""
    axes.set_xlabel(f"weight in the group{rest}")
