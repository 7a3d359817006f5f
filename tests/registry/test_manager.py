from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Protocol

import pluggy
import pytest

from metabench.errors import MetabenchError, PluginError, SuiteError
from metabench.planning.plan import make_plan
from metabench.planning.suite_file import SuiteFile, resolve
from metabench.registry import hookspecs
from metabench.registry.manager import PluginManager

BUILT_IN = {
    "anil",
    "bd-cspn",
    "classifier",
    "classifier-cosine",
    "dkt",
    "feat",
    "finetuning",
    "laplacianshot",
    "logistic-regression",
    "maml",
    "matchingnet",
    "meta-baseline",
    "metasgd",
    "nearest-mean",
    "nearest-pixel",
    "pretrained",
    "protomaml",
    "protonet",
    "pt-map",
    "r2d2",
    "relationnet",
    "reptile",
    "rfs",
    "ridge",
    "siamese",
    "simpleshot",
    "tim",
    "tip-adapter",
    "transductive-finetuning",
    "untrained",
}


class Distributions(Protocol):
    folder: Path

    def add(self, name: str, source: str, entry: str | None = None) -> str: ...


def announcing(name: str, target: str, kind: str = "algorithm") -> str:
    """Return the source of a plugin that provides one name."""
    return f"""
        from metabench.specs import {kind.capitalize()}Spec, hookimpl

        @hookimpl
        def metabench_{kind}s():
            return [{kind.capitalize()}Spec("{name}", "{target}", "made up")]
        """


def manager(selection: str = "") -> PluginManager:
    return PluginManager.from_environment({"METABENCH_PLUGINS": selection})


def refusal(call: Callable[[str], object], name: str) -> str:
    with pytest.raises(PluginError) as caught:
        call(name)
    return str(caught.value)


# ---------------------------------------------------------------------------------------- working plugins


def test_a_distribution_adds_to_the_built_ins(distributions: Distributions) -> None:
    distributions.add("good-one", announcing("mine", "metabench_plugins.algorithms.protonet:ProtoNet"))
    plugins = manager()
    assert set(plugins.algorithms()) == BUILT_IN | {"mine"}
    assert plugins.algorithm_class("mine").__name__ == "ProtoNet"
    assert plugins.provider("algorithm", "mine") == "good-one 1.0"
    assert plugins.provider("algorithm", "maml").startswith("metabench ")
    assert [info.problem for info in plugins.plugins()] == ["", "", ""], "the core's own engine is a plugin, too"


def test_the_built_ins_use_the_same_entry_points() -> None:
    plugins = manager("metabench")
    assert set(plugins.algorithms()) == BUILT_IN
    of_papers = {"conv4", "conv-512", "koch", "resnet10", "resnet12", "resnet18", "wrn28-10"}
    of_libraries = {"efficientnet-lite0", "timm", "torchvision"}
    assert set(plugins.backbones()) == {"identity", "mlp"} | of_papers | of_libraries
    published = {"miniimagenet", "tieredimagenet", "cifarfs", "fc100", "cub", "emnist", "metaalbum", "metadataset"}
    targets = {"eurosat", "cropdisease", "isic", "chestx"}
    of_anybody = {"features", "folder", "glyphs", "omniglot", "omniglot-runs", "sinusoid"}
    assert set(plugins.datasets()) == of_anybody | published | targets
    assert [info.name for info in plugins.plugins()] == ["builtin", "few-shot"]


def test_a_hook_may_return_any_iterable(distributions: Distributions) -> None:
    source = announcing("mine", "x:Y").replace("return [", "yield from [")
    distributions.add("good-one", source)
    assert "mine" in manager().algorithms()


# ----------------------------------------------------------------------------------------- broken plugins

BROKEN = {
    "import failure": ("import no_such_module_at_all\n", "No module named 'no_such_module_at_all'"),
    "exception at import": ("raise RuntimeError('not today')\n", "RuntimeError: not today"),
    "exception without words": ("assert False\n", "AssertionError"),
    "syntax error": ("def broken(:\n", "SyntaxError"),
    "wrong signature": (
        "from metabench.specs import hookimpl\n@hookimpl\ndef metabench_algorithms(colour): return []\n",
        "colour",
    ),
    "unknown hook": (
        "from metabench.specs import hookimpl\n@hookimpl\ndef metabench_algoritms(): return []\n",
        "metabench_algoritms",
    ),
    "returns nothing": (
        "from metabench.specs import hookimpl\n@hookimpl\ndef metabench_algorithms(): pass\n",
        "metabench_algorithms",
    ),
    "returns words": (
        "from metabench.specs import hookimpl\n@hookimpl\ndef metabench_algorithms(): return ['mine']\n",
        "'mine' instead of AlgorithmSpec",
    ),
    "returns another kind": (
        "from metabench.specs import BackboneSpec, hookimpl\n@hookimpl\n"
        "def metabench_algorithms(): return [BackboneSpec('mine', 'a:B', '')]\n",
        "instead of AlgorithmSpec",
    ),
    "hook fails": (
        "from metabench.specs import hookimpl\n@hookimpl\ndef metabench_algorithms(): raise OSError('no disk')\n",
        "OSError: no disk",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_named_and_affects_only_its_own_names(distributions: Distributions, case: str) -> None:
    source, reason = BROKEN[case]
    distributions.add("broken-one", source)
    plugins = manager()
    assert set(plugins.algorithms()) == BUILT_IN
    assert plugins.algorithm_class("protonet").__name__ == "ProtoNet"
    message = refusal(plugins.algorithm_class, "mine")
    assert "no algorithm 'mine'" in message
    assert "'broken-one' 1.0" in message
    assert reason in message
    assert len(message.splitlines()) <= 2
    (problem,) = [info.problem for info in plugins.plugins() if info.distribution == "broken-one"]
    assert reason in problem


def test_a_broken_plugin_fails_only_the_suite_that_needs_it(
    distributions: Distributions, suite_file: Callable[[str], SuiteFile]
) -> None:
    distributions.add("broken-one", "import no_such_module_at_all\n")
    text = (
        "name: x\ndatasets: {glyphs: {}}\nbackbones: {conv4: {}}\nways: [2]\nshots: [1]\n"
        "train: {steps: 1}\nalgorithms:\n  protonet: {}\n"
    )
    plugins = manager()
    assert len(make_plan(*resolve(suite_file(text)), plugins)) == 1
    with pytest.raises(MetabenchError, match=r"suite.yaml:9: algorithms\.mine: no algorithm 'mine'(.|\n)*broken-one"):
        make_plan(*resolve(suite_file(text + "  mine: {}\n")), plugins)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module_at_all:Thing", "No module named 'no_such_module_at_all'"),
        ("metabench_plugins.algorithms.protonet:Nothing", "Nothing"),
        ("metabench_plugins.algorithms.protonet", "metabench_plugins.algorithms.protonet"),
        ("pathlib:Path", "is not a subclass of metabench.api.Algorithm"),
        ("metabench_plugins.backbones.conv4:Conv4", "is not a subclass of metabench.api.Algorithm"),
        ("pathlib:os", "is not a subclass of metabench.api.Algorithm"),
    ],
)
def test_a_wrong_target_is_reported_when_it_is_used(distributions: Distributions, target: str, reason: str) -> None:
    distributions.add("broken-one", announcing("mine", target))
    plugins = manager()
    assert "mine" in plugins.algorithms(), "listing needs no target"
    message = refusal(plugins.algorithm_class, "mine")
    assert "the algorithm 'mine' of broken-one 1.0" in message
    assert target in message
    assert reason in message
    assert "\n" not in message
    assert plugins.algorithm_class("maml").__name__ == "MAML"


@pytest.mark.parametrize("kind", ["algorithm", "backbone", "dataset"])
def test_every_kind_checks_its_targets(distributions: Distributions, kind: str) -> None:
    distributions.add("broken-one", announcing("mine", "pathlib:Path", kind))
    message = refusal(getattr(manager(), f"{kind}_class"), "mine")
    assert f"is not a subclass of metabench.api.{kind.capitalize()}" in message


def test_a_target_whose_module_fails_is_reported_in_one_line(distributions: Distributions) -> None:
    module = distributions.add("other-one", "raise ImportError('one\\ntwo')\n")
    distributions.add("broken-one", announcing("mine", f"{module}:Thing"))
    message = refusal(manager().algorithm_class, "mine")
    assert message.endswith("cannot be imported: ImportError: one two")


# ------------------------------------------------------------------------------------------------- names


def test_a_name_claimed_twice_names_both_distributions(distributions: Distributions) -> None:
    distributions.add("first-one", announcing("mine", "metabench_plugins.algorithms.protonet:ProtoNet"))
    distributions.add("second-one", announcing("mine", "metabench_plugins.algorithms.maml:MAML"))
    message = refusal(manager().algorithm_class, "mine")
    assert "the algorithm 'mine' is provided by" in message
    assert "'first-one' 1.0" in message
    assert "'second-one' 1.0" in message
    assert "METABENCH_PLUGINS" in message
    assert manager().conflicts() == [message]
    assert manager().algorithm_class("siamese").__name__ == "Siamese"
    assert manager("-second-one").conflicts() == []
    assert manager("-first-one").algorithm_class("mine").__name__ == "MAML"


def test_the_name_of_a_built_in_cannot_be_taken_silently(distributions: Distributions) -> None:
    distributions.add("first-one", announcing("maml", "metabench_plugins.algorithms.protonet:ProtoNet"))
    message = refusal(manager().algorithm_class, "maml")
    assert "'metabench'" in message
    assert "'first-one'" in message


def test_a_name_twice_in_one_plugin_is_an_error_too(distributions: Distributions) -> None:
    spec = 'AlgorithmSpec("mine", "pathlib:Path", "")'
    source = (
        f"from metabench.specs import *\nfrom metabench.specs import AlgorithmSpec, hookimpl\n"
        f"@hookimpl\ndef metabench_algorithms(): return [{spec}, {spec}]\n"
    )
    distributions.add("first-one", source)
    assert "is provided by 'first-one' 1.0" in refusal(manager().algorithm_class, "mine")


@pytest.mark.parametrize(
    ("kind", "word", "near"),
    [("algorithm", "mamll", "maml"), ("backbone", "conv", "conv4"), ("dataset", "glyph", "glyphs")],
)
def test_an_unknown_name_lists_the_available_names_and_the_nearest(
    plugins: PluginManager, kind: str, word: str, near: str
) -> None:
    message = refusal(getattr(plugins, f"{kind}_class"), word)
    assert message.startswith(f"no {kind} '{word}'")
    assert f"did you mean '{near}'?" in message
    assert "Available: " in message
    assert "\n" not in message


def test_an_unknown_suite_lists_the_available_suites(plugins: PluginManager) -> None:
    message = refusal(plugins.suite_path, "quikstart")
    assert "did you mean 'quickstart'?" in message
    assert "omniglot" in message


# ------------------------------------------------------------------------------------- METABENCH_PLUGINS


def test_an_allow_list_takes_only_its_plugins(distributions: Distributions) -> None:
    distributions.add("one", announcing("mine", "x:Y"))
    assert set(manager("one").algorithms()) == {"mine"}
    assert set(manager("metabench").algorithms()) == BUILT_IN
    assert set(manager(" one , metabench ").algorithms()) == BUILT_IN | {"mine"}
    assert set(manager("builtin").algorithms()) == BUILT_IN, "an entry point may be named too"


def test_a_block_list_leaves_out_its_plugins(distributions: Distributions) -> None:
    distributions.add("one", announcing("mine", "x:Y"))
    assert set(manager("-one").algorithms()) == BUILT_IN
    assert set(manager("-metabench").algorithms()) == {"mine"}
    assert [info.name for info in manager("-one,-metabench").plugins()] == ["few-shot"]


def test_a_blocked_plugin_is_not_imported(distributions: Distributions) -> None:
    module = distributions.add("one", "raise SystemExit('imported')\n")
    assert "mine" not in manager("-one").algorithms()
    assert module not in sys.modules


def test_a_plugin_that_exits_is_broken(distributions: Distributions) -> None:
    distributions.add("broken-one", "import sys\nsys.exit('no licence')\n")
    assert "'broken-one' 1.0" in refusal(manager().algorithm_class, "mine")


@pytest.mark.parametrize(
    ("selection", "parts"),
    [
        ("metabench,-one", ["both allows and blocks", "metabench,-one"]),
        ("metabenhc", ["'metabenhc', which is not installed", "did you mean 'metabench'?"]),
        ("-none", ["'none', which is not installed", "one"]),
    ],
)
def test_a_contradictory_list_is_refused(distributions: Distributions, selection: str, parts: list[str]) -> None:
    distributions.add("one", announcing("mine", "x:Y"))
    message = refusal(manager, selection)
    assert "METABENCH_PLUGINS" in message
    assert [part for part in parts if part not in message] == []


# ------------------------------------------------------------------------------------------------ events

LISTENER = """
    from metabench.specs import hookimpl

    heard = []

    @hookimpl
    def metabench_run_started(output, suite, cells):
        heard.append(("started", output, suite["name"], cells))

    @hookimpl
    def metabench_cell_finished(record):
        heard.append(("cell", record["cell"]))

    @hookimpl
    def metabench_run_finished(output, records):
        heard.append(("finished", output, len(list(records))))
    """

FAILING = """
    from metabench.specs import hookimpl

    @hookimpl
    def metabench_run_started(output):
        raise RuntimeError("one\\ntwo")

    @hookimpl
    def metabench_cell_finished(output, record):
        raise RuntimeError("no network")

    @hookimpl
    def metabench_run_finished(records):
        raise RuntimeError("no disk")
    """


def tell(plugins: PluginManager) -> None:
    plugins.run_started(Path("out"), {"name": "x"}, 3)
    plugins.cell_finished(Path("out"), {"cell": "c"})
    plugins.run_finished(Path("out"), [{"cell": "c"}, {"cell": "d"}])


def test_hooks_receive_only_the_arguments_that_they_name(distributions: Distributions) -> None:
    module = distributions.add("listening-one", LISTENER)
    tell(manager())
    assert sys.modules[module].heard == [("started", Path("out"), "x", 3), ("cell", "c"), ("finished", Path("out"), 2)]


def test_a_failing_listener_is_logged_and_the_others_are_called(
    distributions: Distributions, caplog: pytest.LogCaptureFixture
) -> None:
    module = distributions.add("listening-one", LISTENER)
    distributions.add("failing-one", FAILING)
    with caplog.at_level(logging.WARNING):
        tell(manager())
    assert len(sys.modules[module].heard) == 3
    assert [message.getMessage() for message in caplog.records] == [
        "metabench_run_started of plugin 'failing-one' 1.0 failed: RuntimeError: one two",
        "metabench_cell_finished of plugin 'failing-one' 1.0 failed: RuntimeError: no network",
        "metabench_run_finished of plugin 'failing-one' 1.0 failed: RuntimeError: no disk",
    ]


# ------------------------------------------------------------------------------------------- parameters


def test_parameters_without_a_json_type_are_usable(
    distributions: Distributions, suite_file: Callable[[str], SuiteFile]
) -> None:
    source = (
        announcing("mine", "fake_good_one:Mine").replace("\n        ", "\n")
        + "\nfrom metabench.api import AlgorithmConfig\n"
        "from metabench_plugins.algorithms.protonet import ProtoNet\n"
        "class Settings(AlgorithmConfig):\n    sizes: tuple[int, ...] = (3, 3)\n"
        "class Mine(ProtoNet):\n    Config = Settings\n"
    )
    distributions.add("good-one", source)
    text = (
        "name: x\ndatasets: {glyphs: {}}\nbackbones: {conv4: {}}\nways: [2]\nshots: [1]\n"
        "train: {steps: 1}\nalgorithms:\n  mine: {params: {sizes: [5, 7]}}\n"
    )
    plugins = manager()
    (cell,) = make_plan(*resolve(suite_file(text)), plugins)
    assert list(cell.algorithm.params["sizes"]) == [5, 7]


def test_a_dataset_that_fails_is_named(distributions: Distributions, suite_file: Callable[[str], SuiteFile]) -> None:
    source = (
        announcing("mine", "fake_broken_one:Mine", "dataset").replace("\n        ", "\n")
        + "\nfrom metabench_plugins.datasets.glyphs import Glyphs\n"
        "class Mine(Glyphs):\n    def sizes(self): raise RuntimeError('not today')\n"
    )
    distributions.add("broken-one", source)
    text = (
        "name: x\ndatasets: {mine: {}}\nbackbones: {conv4: {}}\nways: [2]\nshots: [1]\n"
        "train: {steps: 1}\nalgorithms: {protonet: {}}\n"
    )
    with pytest.raises((PluginError, SuiteError), match=r"broken-one.*not today"):
        make_plan(*resolve(suite_file(text)), manager())


@pytest.mark.parametrize(
    ("version", "advice"), [("3", "update metabench"), ("1", "update the plugin"), ("'2'", "update the plugin")]
)
def test_a_plugin_of_another_api_version_is_broken_with_advice(
    distributions: Distributions, version: str, advice: str
) -> None:
    source = announcing("mine", "metabench_plugins.algorithms.protonet:ProtoNet")
    distributions.add("other-one", f"        METABENCH_API_VERSION = {version}\n{source}")
    message = refusal(manager().algorithm_class, "mine")
    assert "'other-one' 1.0 may provide it" in message
    assert f"of the plugin API, and this is 2: {advice}" in message
    assert manager().algorithm_class("protonet").__name__ == "ProtoNet"


def test_a_plugin_of_this_api_version_works(distributions: Distributions) -> None:
    source = announcing("mine", "metabench_plugins.algorithms.protonet:ProtoNet")
    distributions.add("this-one", f"        METABENCH_API_VERSION = 2\n{source}")
    assert manager().algorithm_class("mine").__name__ == "ProtoNet"


# ------------------------------------------------------------------------------------------ order, wrappers


def listening(name: str, options: str = "") -> str:
    """Return the source of a plugin that adds its name to a file when a run is finished."""
    return f"""
        from metabench.specs import hookimpl

        @hookimpl({options})
        def metabench_run_finished(output, records):
            with open(output / "called", "a", encoding="utf-8") as file:
                file.write("{name} ")
        """


def test_hooks_are_called_in_the_order_that_pluggy_documents(distributions: Distributions, tmp_path: Path) -> None:
    options = {"a-last": "trylast=True", "b-plain": "", "c-first": "tryfirst=True", "d-plain": ""}
    reference = pluggy.PluginManager("metabench")
    reference.add_hookspecs(hookspecs)
    entries = []
    for name, option in options.items():
        distributions.add(name, listening(name, option))
        (entry,) = distribution(name).entry_points
        reference.register(entry.load())
        entries.append(entry)
    for folder in ("pluggy", "metabench"):
        (tmp_path / folder).mkdir()
    reference.hook.metabench_run_finished(output=tmp_path / "pluggy", records=[])
    PluginManager(entries).run_finished(tmp_path / "metabench", [])
    assert (tmp_path / "pluggy" / "called").read_text("utf-8") == "c-first d-plain b-plain a-last "
    assert (tmp_path / "metabench" / "called").read_text("utf-8") == "c-first d-plain b-plain a-last "


@pytest.mark.parametrize("option", ["wrapper=True", "hookwrapper=True"])
def test_a_wrapper_of_a_hook_is_refused_and_other_plugins_work(distributions: Distributions, option: str) -> None:
    wrapping = f"""
        from metabench.specs import hookimpl

        @hookimpl({option})
        def metabench_algorithms():
            yield
        """
    distributions.add("wrapping", wrapping)
    distributions.add("plain", announcing("mine", "nowhere:Nothing"))
    plugins = manager()
    assert [info.problem for info in plugins.plugins() if info.distribution == "wrapping"] == [
        "PluginError: it wraps metabench_algorithms: metabench calls no wrappers; mark it with plain @hookimpl"
    ]
    assert set(plugins.algorithms()) == BUILT_IN | {"mine"}


def test_a_hook_that_does_not_return_is_named_and_called_no_more(
    distributions: Distributions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("metabench.registry.manager.EVENT_SECONDS", 0.2)
    distributions.add(
        "endless",
        """
        import threading
        from metabench.specs import hookimpl
        calls = []
        @hookimpl
        def metabench_cell_finished(record):
            calls.append(record)
            threading.Event().wait()
        """,
    )
    heard = distributions.add(
        "other",
        """
        from metabench.specs import hookimpl
        heard = []
        @hookimpl
        def metabench_cell_finished(record): heard.append(record)
        """,
    )
    manager = PluginManager.from_environment({})
    for number in range(3):
        manager.cell_finished(tmp_path, {"number": number})
    assert [record["number"] for record in sys.modules[heard].heard] == [0, 1, 2]
    assert len(sys.modules["fake_endless"].calls) == 1
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (
        "metabench_cell_finished of plugin 'endless' 1.0: it has not returned after 0.2 s; it is called no more"
    )


def test_a_hook_is_called_once_for_many_look_ups(distributions: Distributions) -> None:
    counting = """
        from metabench.specs import AlgorithmSpec, hookimpl

        calls = []

        @hookimpl
        def metabench_algorithms():
            calls.append(1)
            return [AlgorithmSpec("mine", "nowhere:Nothing", "")]
        """
    module = distributions.add("counting", counting)
    plugins = manager()
    for _ in range(3):
        assert "mine" in plugins.algorithms()
        assert plugins.provider("algorithm", "mine") == "counting 1.0"
    assert sys.modules[module].calls == [1]


def test_a_message_about_a_missing_name_says_what_the_selection_leaves_out(distributions: Distributions) -> None:
    hidden = PluginManager.from_environment({"METABENCH_PLUGINS": "-metabench"})
    for call in (hidden.algorithm_class, hidden.kind_of):
        with pytest.raises(PluginError, match=r"METABENCH_PLUGINS=-metabench leaves out: metabench") as error:
            call("protonet")
        assert "'protonet'" in str(error.value)
    everything = PluginManager.from_environment({})
    assert everything.hidden() == ""
    with pytest.raises(PluginError) as error:
        everything.algorithm_class("protonett")
    assert "METABENCH_PLUGINS" not in str(error.value)


def test_the_kind_of_a_name_is_recognised(tmp_path: Path, plugins: PluginManager) -> None:
    path = tmp_path / "things.py"
    path.write_text(
        "from metabench.api import Algorithm, Backbone, Dataset\n"
        "from metabench.specs import hookimpl\n"
        "class A(Algorithm): pass\nclass B(Backbone): pass\nclass D(Dataset): pass\nclass N: pass\nnumber = 3\n"
        "class L:\n    @hookimpl\n    def metabench_run_started(self): pass\nclass M(L): pass\n",
        encoding="utf-8",
    )
    names = ["protonet", "conv4", "glyphs", "mlflow", f"{path}:A", f"{path}:B", f"{path}:D", f"{path}:M"]
    assert [plugins.kind_of(name) for name in names] == ["algorithm", "backbone", "dataset", "logger"] * 2
    with pytest.raises(PluginError, match=r"things\.py:N is no subclass of Algorithm, Backbone or Dataset"):
        plugins.kind_of(f"{path}:N")
    with pytest.raises(PluginError, match=r"things\.py:number is not a class"):
        plugins.kind_of(f"{path}:number")
    with pytest.raises(
        PluginError,
        match=r"no algorithm, backbone, dataset, logger, metric, engine or executor 'conv' \(did you mean 'conv4'\?\)",
    ):
        plugins.kind_of("conv")


OLD = """
    import torch
    from metabench.api import Algorithm
    class Old(Algorithm):
        def meta_step(self, episodes): return {"loss": torch.zeros(())}
        def predict(self, support_x, support_y, query_x, way): return torch.zeros(*query_x.shape[:2], way)
    """
OLDER = """
    from metabench.api import EmbeddingAlgorithm
    class Old(EmbeddingAlgorithm):
        def feature_scores(self, support, support_y, query, way): return query
    """


HALF = """
    from metabench_plugins.algorithms.protonet import ProtoNet
    class Old(ProtoNet):
        def meta_step(self, episodes): return {}
    """


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (HALF, "(it defines meta_step)"),
        (OLD, "(it defines meta_step, predict)"),
        (OLDER, "EmbeddingAlgorithm belongs to version 1 of the plugin API"),
    ],
    ids=["half", "methods", "bases"],
)
def test_a_class_of_version_1_is_told_what_to_change(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "old.py").write_text(textwrap.dedent(source), encoding="utf-8")
    with pytest.raises(PluginError) as refused:
        PluginManager.from_environment({}).algorithm_class(f"{tmp_path / 'old.py'}:Old")
    assert said in str(refused.value)
    assert "write adapt(support) and answer(state, query)" in str(refused.value)
