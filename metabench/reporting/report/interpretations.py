"""Show an episode as a method sees it: nearest support images, a map of the features, a saliency map."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metabench.analysis.interpretation import Interpretation
from metabench.reporting.report.drawing import Plot, add_hover, empty_figure
from metabench.reporting.report.styles import Style, styles_of


@dataclass(frozen=True)
class Interpreted:
    """An interpreted episode, as the page shows it.

    Attributes:
        title: method, task and number of the episode.
        map: the map of the features.
        classes: style of each class in the map, by number and name.
        shown: pictures in base64 and texts.
    """

    title: str
    map: Plot
    classes: Mapping[str, Style]
    shown: Mapping[str, Any]


def interpreted(episode: Interpretation) -> Interpreted:
    """Return an interpreted episode with its plot."""
    labels = [f"{number} {name}" for number, name in enumerate(episode.classes, 1)]
    styles = styles_of(labels)
    first, second = (f"{share:.0%}" for share in episode.variance)
    plot = empty_figure(f"first component ({first})", f"second component ({second})", height=360)
    for label, name in enumerate(labels):
        for size, is_support in ((8, False), (18, True)):
            members = [
                point
                for point, of, support in zip(episode.points, episode.labels, episode.is_support, strict=True)
                if of == label and support is is_support
            ]
            plot.scatter(
                [x for x, _ in members],
                [y for _, y in members],
                size=size,
                marker=styles[name].marker,
                line_color=styles[name].colour,
                line_width=2 if is_support else 1,
                fill_color=styles[name].colour,
                fill_alpha=styles[name].fill * (1.0 if is_support else 0.5),
                name=name,
            )
    x, y = episode.points[episode.query]
    plot.scatter([x], [y], size=26, marker="circle", fill_alpha=0, line_color="#d24b4b", line_width=2, name="the query")
    add_hover(plot, "first component", "second component")
    shown = sum(episode.variance)
    return Interpreted(
        f"{episode.method} · {episode.task} · episode {episode.number}",
        Plot(
            f"Features of the episode's images in two principal components, which hold {shown:.0%} of their variance. "
            "Large: support images; small: queries; ringed: the query above",
            f"Map of {len(episode.points)} images of the classes {', '.join(labels)}",
            plot,
        ),
        styles,
        {
            "query": _picture(episode.query_png),
            "true": episode.true,
            "predicted": episode.predicted,
            "probability": f"{episode.probability:.3f}",
            "nearest": [
                {
                    "png": _picture(one.png),
                    "name": one.name,
                    "similarity": f"{one.similarity:.3f}",
                    "weight": f"{one.weight:.3f}",
                }
                for one in episode.nearest
            ],
            "weights": episode.weights_are,
            "saliency": _picture(episode.saliency_png) if episode.saliency_png else "",
            "saliency_note": episode.saliency_note,
        },
    )


def _picture(png: bytes) -> str:
    return base64.b64encode(png).decode()


def with_maps(shown: Sequence[Interpreted], maps: Sequence[Sequence[Any]]) -> list[tuple[Interpreted, Any]]:
    """Return each interpreted episode with the HTML of its map."""
    return [(one, of_one[0]) for one, of_one in zip(shown, maps, strict=True)]
