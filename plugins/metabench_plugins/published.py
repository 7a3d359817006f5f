"""Read the published results of `published.yaml`."""

from __future__ import annotations

from pathlib import Path

import yaml

from metabench.specs import PublishedResult


def published_results() -> list[PublishedResult]:
    """Return the published results of the built-in algorithms."""
    results = []
    for paper in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")):
        for result in paper["results"]:
            value, half = result["accuracy"]
            results.append(
                PublishedResult(
                    algorithm=paper["algorithm"],
                    dataset=paper["dataset"],
                    way=result["way"],
                    shot=result["shot"],
                    accuracy=value / 100,
                    ci95=None if half is None else half / 100,
                    source=paper["source"],
                    link=paper["link"],
                    variant=paper.get("variant", {}),
                    protocol={**paper.get("protocol", {}), **result.get("protocol", {})},
                    notes=tuple(paper["notes"]),
                )
            )
    return results
