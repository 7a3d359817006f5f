"""A suite has a version that a paper can cite, and a dataset its licence."""

from __future__ import annotations

from pathlib import Path

import yaml

from command_line import SUITE, Command, Distributions
from metabench import __version__
from metabench.records.store import Store


def test_the_version_and_a_licence_of_a_suite_are_in_record_table_and_report(metabench: Command) -> None:
    text = SUITE.replace("name: small", "name: small\nversion: 2").replace("glyphs: {}", "glyphs: {licence: CC0}")
    Path("small.yaml").write_text(text)
    command = ("run", "small.yaml", "--profile", "smoke", "--in-process", "--only", "algorithm=protonet")
    assert metabench(*command, "--output", "run").code == 0
    (record,) = Store(Path("run")).records()
    assert (record.suite, record.suite_version) == ("small", 2)
    assert record.data is not None
    assert record.data.licence == "CC0"
    out = metabench("leaderboard", "run").out
    assert "suite: small, v2" in out
    assert "licence of glyphs: CC0" in out
    assert metabench("report", "run").code == 0
    page = (Path("run") / "report.html").read_text()
    assert "small, v2" in page
    assert "licence of glyphs: CC0" in page


def test_a_list_says_versions_and_what_supersedes_a_suite(metabench: Command, distributions: Distributions) -> None:
    assert "omniglot" in metabench("list", "suites").out
    assert "v1" in metabench("list", "suites").out
    path = distributions.folder / "old.yaml"
    path.write_text("name: old\nversion: 1\nsuperseded_by: old, v2\n")
    distributions.add(
        "suites-of-mine",
        f"""
        from pathlib import Path
        from metabench.specs import SuiteSpec, hookimpl

        @hookimpl
        def metabench_suites():
            return [SuiteSpec("old", Path({str(path)!r}))]
        """,
    )
    assert "v1, superseded by old, v2" in metabench("list", "suites").out


def test_datasets_are_listed_with_their_licences(metabench: Command) -> None:
    rows = {line.split()[0]: line for line in metabench("data", "list").out.splitlines() if line}
    assert "MIT" in rows["omniglot"]
    assert "none stated by the authors of CIFAR-100" in rows["cifarfs"]
    assert "unknown" in rows["folder"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == __version__
    assert {"message", "title", "authors", "license"} <= citation.keys()
