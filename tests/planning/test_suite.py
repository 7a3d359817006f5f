from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metabench.errors import SuiteError
from metabench.planning.plan import make_plan
from metabench.planning.suite import Suite
from metabench.planning.suite_file import SuiteFile, read_suite, resolve
from metabench.planning.suite_text import write_suite_text
from metabench.registry.manager import PluginManager

Read = Callable[[str], SuiteFile]

PLAIN = """\
name: plain
datasets:
  glyphs: {}
backbones:
  conv4: {params: {channels: 4}}
algorithms:
  protonet:
    params: {lr: 1e-3}
  maml:
    train: {queries: 5}
ways: [2, 5]
shots: [1]
train: {steps: 10}
eval: {episodes: 20}
profiles:
  smoke:
    train: {meta_batch: 3}
    algorithms:
      maml: {train: {steps: 4}, params: {inner_lr: 0.5}}
  other:
    ways: [3]
"""


def problem(path: Path, profile: str | None = None) -> str:
    """Return the one-line error message of a suite file, without the file's name."""
    with pytest.raises(SuiteError) as caught:
        resolve(read_suite(path), profile)
    message = str(caught.value)
    assert message.startswith((str(path), f"cannot read the suite {path}"))
    assert "\n" not in message
    return message.removeprefix(str(path))


@pytest.fixture
def complaint(tmp_path: Path) -> Callable[..., str]:
    def write(content: str | bytes, profile: str | None = None) -> str:
        path = tmp_path / "s.yaml"
        path.write_bytes(content if isinstance(content, bytes) else textwrap.dedent(content).encode())
        return problem(path, profile)

    return write


Complaint = Callable[..., str]


def matches(message: str, start: str, *parts: str) -> bool:
    return message.startswith(start) and all(part in message for part in parts)


# ------------------------------------------------------------------------------------------ valid suites


def test_the_suites_of_committed_runs_can_be_read(plugins: PluginManager) -> None:
    paths = sorted((Path(__file__).parents[2] / "results").glob("*/suite.yaml"))
    assert len(paths) >= 4
    for path in paths:
        assert make_plan(*resolve(read_suite(path), ""), plugins)


def test_the_shipped_suites_are_valid_in_every_profile(plugins: PluginManager) -> None:
    assert {"omniglot", "quickstart"} <= set(plugins.suites())
    one, both = {(5, 1)}, {(5, 1), (5, 5)}
    unusual = {
        "ci": (one, 5),
        "tune-glyphs": (one, 2),
        "methods": (one, 27),
        "omniglot-inductive": (both, 4),
        "omniglot-reference": ({*both, (20, 1), (20, 5)}, 12),
        "omniglot-reference-maml": (both, 2),
        "omniglot-reference-reptile": (both, 4),
        "omniglot-koch": ({(20, 1)}, 1),
        "omniglot-images": (both, 10),
        "omniglot-methods": (both, 12),
        "omniglot-20way": ({(20, 1), (20, 5)}, 10),
        "photos": ({(3, 1), (3, 5)}, 10),
        "pretrained": (both, 40),
        "heads": (both, 28),
        "caltech101": (both, 26),
        **dict.fromkeys(("miniimagenet", "tieredimagenet", "cifarfs", "fc100", "cub"), (both, 24)),
        "cross-char": (both, 20),
        "cross-domain": ({(5, 5), (5, 20), (5, 50)}, 70),
    }
    for name in plugins.suites():
        file = read_suite(plugins.suite_path(name))
        assert "smoke" in file.profiles
        for profile in [None, "", *file.profiles]:
            suite, places = resolve(file, profile)
            cells = [cell for cell in make_plan(suite, places, plugins) if not cell.floor]
            tests = {(cell.shape.way, cell.shape.shot) for cell in cells}
            if name == "sinusoid":  # a regression, which has no classes
                assert tests <= {(1, 5), (1, 10)}
                assert {cell.test.task for cell in cells} == {"regression"}
                continue
            assert (tests, len(cells)) == unusual.get(name, (both, 10))


def test_a_suite_has_its_values_and_defaults(suite_file: Read) -> None:
    suite, _ = resolve(suite_file(PLAIN))
    assert suite.name == "plain"
    assert suite.ways == [2, 5]
    assert suite.algorithms["protonet"].params == {"lr": 0.001}
    assert suite.algorithms["maml"].train.queries == 5
    assert (suite.queries, suite.seeds, suite.train.meta_batch, suite.profile) == (15, [0], 1, "")


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "10e-4", "0.001"])
def test_scientific_notation_is_a_number(suite_file: Read, text: str) -> None:
    suite, _ = resolve(suite_file(PLAIN.replace("1e-3", text)))
    assert suite.algorithms["protonet"].params == {"lr": pytest.approx(0.001)}


def test_text_that_resembles_a_number_stays_text(suite_file: Read) -> None:
    suite, _ = resolve(suite_file(PLAIN + "description: e-3\n"))
    assert suite.description == "e-3"


def test_a_resolved_suite_resolves_to_itself(suite_file: Read, tmp_path: Path) -> None:
    suite, _ = resolve(suite_file(PLAIN), "smoke")
    stored = suite.model_dump(mode="json", exclude={"profile"})
    path = tmp_path / "stored.yaml"
    path.write_text(yaml.safe_dump(stored), encoding="utf-8")
    again, _ = resolve(read_suite(path))
    assert again.model_copy(update={"profile": "smoke"}) == suite


def test_every_resolved_suite_of_the_built_ins_resolves_to_itself(plugins: PluginManager, tmp_path: Path) -> None:
    for name in plugins.suites():
        suite, _ = resolve(read_suite(plugins.suite_path(name)))
        path = tmp_path / f"{name}.yaml"
        path.write_text(write_suite_text(suite.model_dump(mode="json", exclude={"profile"})), encoding="utf-8")
        again, _ = resolve(read_suite(path))
        assert again.model_copy(update={"profile": suite.profile}) == suite
        for label, entry in suite.algorithms.items():  # giving a setting has a meaning of its own
            written = again.algorithms[label].train
            assert bool(written and written.model_fields_set) == bool(entry.train and entry.train.model_fields_set)


def test_aliases_are_followed(suite_file: Read) -> None:
    suite, _ = resolve(suite_file(PLAIN.replace("[2, 5]", "&n [2, 5]").replace("shots: [1]", "shots: *n")))
    assert suite.shots == [2, 5]


# -------------------------------------------------------------------------------------------- profiles


def test_a_profile_changes_only_its_own_keys(suite_file: Read) -> None:
    file = suite_file(PLAIN)
    bare, _ = resolve(file)
    smoke, _ = resolve(file, "smoke")
    assert smoke.profile == "smoke"
    assert (smoke.train.steps, smoke.train.meta_batch) == (10, 3)
    assert smoke.algorithms["protonet"] == bare.algorithms["protonet"]
    assert (smoke.algorithms["maml"].train.steps, smoke.algorithms["maml"].train.queries) == (4, 5)
    assert smoke.algorithms["maml"].params == {"inner_lr": 0.5}
    assert (smoke.ways, smoke.shots, smoke.datasets) == (bare.ways, bare.shots, bare.datasets)
    assert list(smoke.algorithms) == list(bare.algorithms)


def test_a_list_in_a_profile_replaces_the_list(suite_file: Read) -> None:
    suite, _ = resolve(suite_file(PLAIN), "other")
    assert suite.ways == [3]


def test_the_default_profile_applies_when_none_is_named(suite_file: Read) -> None:
    file = suite_file(PLAIN + "default_profile: other\n")
    assert resolve(file)[0].profile == "other"
    assert resolve(file, "smoke")[0].profile == "smoke"
    assert resolve(file, "")[0].ways == [2, 5]


def test_an_unknown_profile_names_the_nearest(complaint: Complaint) -> None:
    assert matches(complaint(PLAIN, "smok"), "", "no profile 'smok'", "did you mean 'smoke'?", "Profiles: smoke, other")
    message = complaint(PLAIN + "default_profile: othr\n")
    assert matches(message, ":22: default_profile: no profile 'othr'", "did you mean 'other'?")


def test_a_misspelt_label_in_a_profile_names_the_nearest(complaint: Complaint) -> None:
    message = complaint(PLAIN.replace("      maml: {train", "      mamll: {train"), "smoke")
    assert message.startswith(":19: profiles.smoke.algorithms.mamll: the suite has no 'mamll' in algorithms")
    assert "did you mean 'maml'?" in message


def test_a_misspelt_key_in_a_profile_is_reported_with_its_line(complaint: Complaint) -> None:
    message = complaint(PLAIN.replace("{meta_batch: 3}", "{meta_bath: 3}"), "smoke")
    assert matches(
        message, ":17: profiles.smoke.train.meta_bath: unknown key 'meta_bath'", "did you mean 'meta_batch'?"
    )


@pytest.mark.parametrize("text", ["[1]", "3", "word"])
def test_profiles_are_mappings(complaint: Complaint, text: str) -> None:
    bare = PLAIN[: PLAIN.index("profiles:")]
    assert complaint(bare + f"profiles: {text}").startswith(":15: profiles: a mapping")
    assert "a mapping" in complaint(bare + f"profiles: {{one: {text}}}", "one")


@pytest.mark.parametrize("text", ["[protonet]", "[{protonet: 1}]", "3", "true", "protonet"])
def test_a_section_of_a_profile_that_is_no_mapping_is_reported(complaint: Complaint, text: str) -> None:
    bare = PLAIN[: PLAIN.index("profiles:")]
    message = complaint(bare + f"profiles:\n  one:\n    algorithms: {text}\n", "one")
    assert message.startswith(":17: profiles.one.algorithms")


# --------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("ways:", "wayz:", ":11: wayz: unknown key 'wayz' … did you mean 'ways'?"),
        (
            "train: {queries",
            "trian: {queries",
            ":10: algorithms.maml.trian: unknown key 'trian' … did you mean 'train'?",
        ),
        ("{queries: 5}", "{querys: 5}", ":10: algorithms.maml.train.querys: unknown key 'querys' … 'queries'?"),
        ("{episodes: 20}", "{episode: 20}", ":14: eval.episode: unknown key 'episode' … did you mean 'episodes'?"),
        ("profiles:", "profils:", ":15: profils: unknown key 'profils' … did you mean 'profiles'?"),
        (
            "profiles:",
            "default_profle: smoke\nprofiles:",
            ":15: default_profle: unknown key 'default_profle' … 'default_profile'?",
        ),
        ("name: plain\n", "", ":1: the key 'name' is missing"),
        ("train: {steps: 10}", "train: {}", ":13: train: the key 'steps' is missing"),
        ("name: plain", "name: a/b", ":1: name: "),
        ("[2, 5]", "[2, five]", ":11: ways.1: input should be a valid integer, not 'five'"),
        ("[2, 5]", "5", ":11: ways: input should be a valid list, not 5"),
        ("[2, 5]", "[2, 2.5]", ":11: ways.1: input should be a valid integer, not 2.5"),
        ("[2, 5]", "[2, yes]", ":11: ways.1: input should be a valid integer, not True"),
        ("[2, 5]", "[5, 5]", ":11: ways: a value is given twice"),
        ("[2, 5]", "[5, 1]", ":11: ways: a way must be at least 2"),
        ("[2, 5]", "[]", ":11: ways: "),
        ("[1]", "[0]", ":12: shots.0: input should be greater than 0, not 0"),
        ("shots: [1]", "shots: [1]\nqueries: 0", ":13: queries: input should be greater than 0, not 0"),
        ("shots: [1]", "shots: [1]\nseeds: [-1]", ":13: seeds: values must not be negative"),
        ("{steps: 10}", "{steps: 0}", ":13: train.steps: input should be greater than 0, not 0"),
        ("{steps: 10}", "{steps: 1, meta_batch: -1}", ":13: train.meta_batch: input should be greater than 0, not -1"),
        ("{steps: 10}", "{steps: 1, way: 1}", ":13: train.way: "),
        ("{queries: 5}", "{way: 1}", ":10: algorithms.maml.train.way: "),
        ("{episodes: 20}", "{episodes: 1}", ":14: eval.episodes: "),
        ("{episodes: 20}", "{batch: 0}", ":14: eval.batch: input should be greater than 0, not 0"),
        ("  glyphs: {}", "  {}", ":2: datasets: "),
        ("  glyphs: {}", "  glyphs: 3", ":3: datasets.glyphs: "),
        ("ways:", "profile: x\nways:", ":11: profile: unknown key 'profile'"),
    ],
)
def test_a_mistake_is_reported_with_its_line_and_key(complaint: Complaint, old: str, new: str, expected: str) -> None:
    assert old in PLAIN
    assert matches(complaint(PLAIN.replace(old, new, 1)), *expected.split(" … "))


def test_a_repeated_key_is_refused(complaint: Complaint) -> None:
    assert complaint(PLAIN + "ways: [3]\n").startswith(":22: the key 'ways' is given twice")
    nested = PLAIN.replace("  maml:\n", "  maml: {}\n  maml:\n")
    assert complaint(nested).startswith(":10: the key 'maml' is given twice")


@pytest.mark.parametrize("key", ["1", "true", "null", "[a, b]", "{a: b}"])
def test_keys_are_words(complaint: Complaint, key: str) -> None:
    message = complaint(f"name: x\n? {key}\n: 1\n")
    assert message.startswith(":2: keys are words, not ")
    assert "Node(" not in message


# ------------------------------------------------------------------------------------- files that attack


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "a suite is a mapping"),
        ("# a comment\n", "a suite is a mapping"),
        ("- name: x\n", "a suite is a mapping"),
        ("just words", "a suite is a mapping"),
        ("name: x\n\tways: [1]\n", ":2: not valid YAML"),
        ("name: [1, 2\n", "not valid YAML"),
        ("name: 'x\n", "not valid YAML"),
        ("name: *nothing\n", ":1: not valid YAML"),
        ("name: x\n---\nname: y\n", "not valid YAML"),
        ("name: \x00\n", "not valid YAML"),
        (b"name: \xff\xfe\n", "not a text file in UTF-8 (byte 6)"),
        ("a: &a [*a]\n", "nested too deeply"),
        ("a: &a {b: *a}\n", "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("{" * 100_000, "nested too deeply"),
        ("- " * 100_000, "nested too deeply"),
        ("a: " + "[" * 30 + "]" * 30, ":1: nested too deeply"),
        ("x" * 1_000_001, "too large for a suite"),
        ("a: [" + "1," * 30_000 + "]", "more than 20000 values"),
        ("name: " + "9" * 5000, "is not a valid int"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_file_that_is_no_suite_has_one_clear_message(
    complaint: Complaint, content: str | bytes, expected: str
) -> None:
    assert expected in complaint(content)


def test_aliases_that_multiply_are_refused(complaint: Complaint) -> None:
    levels = "\n".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "more than 20000 values" in complaint(f"a: &a [x, x, x, x, x, x, x, x, x]\n{levels}\n")


def test_a_file_of_ten_megabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"")
    with open(path, "wb") as file:
        file.truncate(10_000_000)
    assert problem(path) == ": 10.0 MB is too large for a suite (at most 1 MB)"


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    assert problem(tmp_path).endswith("Is a directory")
    assert problem(tmp_path / "none.yaml").endswith("No such file or directory")


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch owned']",
        "!!python/object/apply:os.system [5]",
        "!!python/object:object {}",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple [5]",
        "!mine [5]",
        "!mine {a: 1}",
        "!mine word",
    ],
)
@pytest.mark.parametrize("place", ["ways: {}\n", "name: {}\n", "x: [ {} ]\n"])
def test_tags_of_programming_languages_are_refused(complaint: Complaint, value: str, place: str) -> None:
    kept = [line for line in PLAIN.splitlines(keepends=True) if not line.startswith(place[:4])]
    message = complaint("".join(kept) + place.replace("{}", value))
    assert value.partition(" ")[0].lstrip("!") in message, "the tag is not named"


@pytest.mark.parametrize("value", ['!!int ""', '!!float ""', "!!bool maybe", "!!timestamp soon", "!!int -", "!!int x"])
def test_a_standard_tag_on_an_unfit_value_is_refused(complaint: Complaint, value: str) -> None:
    assert complaint(PLAIN.replace("{steps: 10}", f"{{steps: {value}}}")).startswith(":13: ")


LONG = "k" * 3000


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("name: x\nways: [5\x01]\n", 2, "#x0001"),
        ('name: x\n\ndescription: "a\x1b[31m"\n', 3, "#x001b"),
        ('name: x\n"a\\e[31m": 1\n', 2, "unknown key 'a\\x1b[31m'"),
        ('name: "a\\e[31m"\n', 1, "a\\x1b[31m"),
        ('name: x\nprofiles: {"a\\e[31m": {}}\n', 2, "profiles.a\\x1b[31m: "),
        (f"name: x\nways: !!{LONG} [5]\n", 2, "the tag tag:yaml.org,2002:kkk"),
        (f"name: x\nways: *{LONG}\n", 2, "undefined alias"),
        (f"name: x\nways: &{LONG} [1]\nshots: &{LONG} [1]\n", 3, "second occurrence"),
        (f"name: x\n? {LONG}\n: 1\n? {LONG}\n: 2\n", 4, "is given twice"),
        (f"name: x\n? {LONG}\n: 1\n", 2, "unknown key 'kkk"),
        (f"name: x\nways: !!int {LONG}\n", 2, "is not a valid int"),
        (f"name: {LONG}\n", 1, "name: "),
        (f"name: x\ntrain: {{? {LONG} : 1}}\n", 2, "train.kkk"),
    ],
)
def test_a_message_has_a_line_and_no_control_character_nor_long_value(
    complaint: Complaint, text: str, line: int, named: str
) -> None:
    message = complaint(text)
    assert message.startswith(f":{line}: ")
    assert named in message
    assert all(char.isprintable() for char in message)
    assert max(map(len, message.split())) <= 120


def test_bytes_that_are_no_text_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_bytes(b"name: x\ndescription: \xff\n")
    with pytest.raises(SuiteError, match=r"suite\.yaml:2: not a text file in UTF-8 \(byte 21\)"):
        read_suite(path)


# -------------------------------------------------------------------------------------------- any text


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("suites") / "s.yaml"


def try_all_profiles(path: Path) -> None:
    """Read and resolve; only a `SuiteError` is allowed."""
    try:
        file = read_suite(path)
    except SuiteError:
        return
    for profile in (None, "", "smoke", "other"):
        try:
            suite, places = resolve(file, profile)
        except SuiteError:
            continue
        assert isinstance(suite, Suite)
        assert str(places.error(("train", "steps"), "x")).startswith(f"{path}:")


@settings(max_examples=150, deadline=None)
@given(content=st.one_of(st.text(max_size=80), st.text("[]{}:-,&*!?|>'\"%@` \n\tabc019._e", max_size=60)))
def test_no_text_raises_anything_but_a_suite_error(scratch: Path, content: str) -> None:
    scratch.write_text(content, encoding="utf-8", errors="surrogatepass")
    try_all_profiles(scratch)


@settings(max_examples=50, deadline=None)
@given(content=st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_suite_error(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    try_all_profiles(scratch)


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["protonet", "steps", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def changed_suites(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a valid suite with one value replaced by an arbitrary one."""
    suite: Any = yaml.safe_load(PLAIN)
    section = suite
    while True:
        key = draw(st.sampled_from(sorted(section)))
        if not isinstance(section[key], dict) or not section[key] or draw(st.booleans()):
            break
        section = section[key]
    section[key] = draw(values)
    assert isinstance(suite, dict)
    return suite


@settings(max_examples=200, deadline=None)
@given(suite=changed_suites())
def test_no_value_anywhere_raises_anything_but_a_suite_error(scratch: Path, suite: dict[str, Any]) -> None:
    scratch.write_text(yaml.safe_dump(suite, allow_unicode=True), encoding="utf-8")
    try_all_profiles(scratch)


@settings(max_examples=50, deadline=None)
@example(ways=[5], seeds=[0], steps=1, lr=1e-3, text="0E0")
@given(
    ways=st.lists(st.integers(2, 50), min_size=1, max_size=4, unique=True),
    seeds=st.lists(st.integers(0, 2**63), min_size=1, max_size=4, unique=True),
    steps=st.integers(1, 10**9),
    lr=st.floats(1e-12, 1e3, allow_subnormal=False),
    # YAML folds NEL as a line break.
    text=st.text(max_size=30).filter(lambda text: "\x85" not in text),
)
def test_valid_values_are_read_unchanged(
    scratch: Path, ways: list[int], seeds: list[int], steps: int, lr: float, text: str
) -> None:
    suite = yaml.safe_load(PLAIN)
    suite |= {"ways": ways, "seeds": seeds, "train": {"steps": steps}, "description": text}
    suite["algorithms"]["protonet"]["params"]["lr"] = lr
    scratch.write_text(write_suite_text(suite), encoding="utf-8")
    resolved, _ = resolve(read_suite(scratch))
    assert (resolved.ways, resolved.seeds, resolved.train.steps, resolved.description) == (ways, seeds, steps, text)
    assert resolved.algorithms["protonet"].params["lr"] == lr
