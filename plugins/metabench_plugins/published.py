"""Reads `published.yaml`, the accuracies that the papers report."""

from __future__ import annotations

from pathlib import Path

import yaml

from metabench.specs import PublishedFigure


def figures() -> list[PublishedFigure]:
    """Return the published accuracies of the built-in algorithms."""
    found = []
    for paper in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")):
        for figure in paper["figures"]:
            value, half = figure["accuracy"]
            found.append(
                PublishedFigure(
                    algorithm=paper["algorithm"],
                    dataset=paper["dataset"],
                    way=figure["way"],
                    shot=figure["shot"],
                    accuracy=value / 100,
                    ci95=None if half is None else half / 100,
                    source=paper["source"],
                    link=paper["link"],
                    variant=paper.get("variant", {}),
                    protocol={**paper.get("protocol", {}), **figure.get("protocol", {})},
                    notes=tuple(paper["notes"]),
                )
            )
    return found
