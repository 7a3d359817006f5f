"""Files of results of other code: what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from metabench.errors import DataError, UsageError
from metabench.exchange.result_files import MethodResults, read_results


class Asked:
    """Four 3-way episodes with two queries of images that have names, of classes that look like numbers."""

    count = 4

    def queries(self, episode: int) -> int:
        return 2

    def classes(self, episode: int) -> Sequence[str]:
        return ["2", "1", "Café"]

    def query_names(self, episode: int) -> Sequence[str] | None:
        return ["2/a.png", "Café/b.png"]


class Nameless(Asked):
    def query_names(self, episode: int) -> Sequence[str] | None:
        return None


Read = Callable[..., list[MethodResults]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return a function that writes and reads a file."""
    monkeypatch.chdir(tmp_path)

    def written(text: str | bytes, method: str | None = "theirs", asked: Asked | None = None) -> list[MethodResults]:
        Path("r.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_results(Path("r.csv"), asked or Asked(), method)

    return written


PREDICTIONS = "episode,query,prediction\n0,0,2\n0,1,0\n1,1,1\n1,0,0\n"


def test_predictions_are_read_by_number(read: Read) -> None:
    (found,) = read(PREDICTIONS)
    assert (found.method, found.seed, found.accuracies) == ("theirs", 0, None)
    assert [labels.tolist() for labels in found.predictions] == [[2, 0], [0, 1]]


def test_predictions_are_read_by_name_also_where_classes_look_like_numbers(read: Read) -> None:
    text = "episode,query,prediction\n0,2/a.png,1\n0,Cafe\u0301/b.png,Cafe\u0301\n1,2/a.png,2\n1,Café/b.png,1\n"
    (found,) = read(text)
    assert [labels.tolist() for labels in found.predictions] == [[1, 2], [0, 1]]


def test_accuracies_of_several_methods_and_seeds_are_read(read: Read) -> None:
    text = "method,episode,accuracy,seed\na,0,1,0\na,1,.5,0\nb,0,0.25,0\r\nb,1,1e-1,0\n\na,0,0,3\na,1,1,3\n"
    found = read(text, method=None)
    assert [(one.method, one.seed) for one in found] == [("a", 0), ("b", 0), ("a", 3)]
    assert [list(one.accuracies) for one in found if one.accuracies is not None] == [[1, 0.5], [0.25, 0.1], [0, 1]]


def test_what_spreadsheets_write_is_read(read: Read) -> None:
    (found,) = read(b"\xef\xbb\xbf" + b'"episode","accuracy"\r\n"0","0.5"\r\n"1","0.75"\r\n')
    assert found.accuracies is not None
    assert found.accuracies.tolist() == [0.5, 0.75]


HEAD = "episode,query,prediction\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.csv is empty: its first line names the columns"),
        (HEAD, "r.csv has no results: its header is followed by no line"),
        ("episode,query\n", "r.csv:1: the column 'prediction' is missing"),
        ("query,prediction\n", "r.csv:1: the column 'episode' is missing"),
        ("episode,acuracy\n", "r.csv:1: unknown column 'acuracy' (did you mean 'accuracy'?)"),
        ("episode,episode,accuracy\n", "r.csv:1: the column 'episode' is given twice"),
        ("episode,query,prediction,accuracy\n", "r.csv:1: a file has accuracies of episodes, or predictions"),
        (HEAD + "0,0\n", "r.csv:2: 2 values, and the header has 3 columns"),
        (HEAD + '0,0,"1\n', "r.csv:2: not valid CSV"),
        (b"episode,accuracy\n0,\xff\n", "r.csv: not a text file in UTF-8"),
        (HEAD + "0,0,1\n4,0,1\n", "r.csv:3: column 'episode': '4' is not an episode, a whole number from 0 to 3"),
        (HEAD + "-1,0,1\n", "r.csv:2: column 'episode': '-1' is not an episode"),
        (HEAD + "1.0,0,1\n", "r.csv:2: column 'episode': '1.0' is not an episode"),
        (HEAD + "0,2,1\n", "r.csv:2: column 'query': '2' is not a query of episode 0, a whole number from 0 to 1"),
        (HEAD + "0,0,3\n", "r.csv:2: column 'prediction': '3' is not a class of episode 0, a whole number from 0 to 2"),
        (HEAD + "0,0,nan\n", "r.csv:2: column 'prediction': 'nan' is not a class of episode 0"),
        (HEAD + "0,0,\n", "r.csv:2: column 'prediction': '' is not a class of episode 0"),
        (HEAD + "0,0,²\n", "r.csv:2: column 'prediction': '²' is not a class of episode 0"),
        (HEAD + "0,2/c.png,1\n", "r.csv:2: column 'query': episode 0 has no query '2/c.png' (did you mean '2/a.png'?)"),
        (
            HEAD + "0,2/a.png,Cafe\n",
            "column 'prediction': episode 0 has no class 'Cafe' (did you mean 'Café'?)",
        ),
        (HEAD + "0,0,1\n0,1,1\n0,0,1\n", "r.csv:4: column 'query': query 0 of episode 0 is also in line 2"),
        (HEAD + "0,0,1\n0,1,1\n1,0,1\n", "episode 1 has predictions of 1 of its 2 queries: query 1 ('Café/b.png')"),
        (HEAD + "0,0,1\n0,1,1\n2,0,1\n2,1,1\n", "theirs, seed 0: episode 1 is missing, and 2 is there"),
        (HEAD + "0,0,1\n0,1,1\n", "theirs, seed 0: one episode is too few"),
        ("episode,accuracy\n0,nan\n", "r.csv:2: column 'accuracy': 'nan' is no accuracy between 0 and 1"),
        ("episode,accuracy\n0,inf\n", "r.csv:2: column 'accuracy': 'inf' is no accuracy between 0 and 1"),
        ("episode,accuracy\n0,93.2\n", "'93.2' is no accuracy between 0 and 1: divide percentages by 100"),
        ("episode,accuracy\n0,1\n0,1\n", "r.csv:3: column 'episode': episode 0 is also in line 2"),
        ("episode,accuracy,seed\n0,1,one\n", "r.csv:2: column 'seed': 'one' is not a training seed, a whole number"),
    ],
)
def test_a_wrong_file_is_refused_with_line_and_column(read: Read, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["", " ", "a" * 161, "\x1b[31mred"])
def test_a_method_has_a_name_that_tables_can_show(read: Read, name: str) -> None:
    with pytest.raises(DataError, match=r"r\.csv:2: column 'method': .* is no name of 1 to 160 characters"):
        read(f'method,episode,accuracy\n"{name}",0,1\n', method=None)


def test_a_method_is_named_once(read: Read) -> None:
    with pytest.raises(UsageError, match="has no column 'method': name it by --method"):
        read(PREDICTIONS, method=None)
    with pytest.raises(UsageError, match="has a column 'method': leave out --method"):
        read("method,episode,accuracy\na,0,1\n")


def test_names_need_images_with_names(read: Read) -> None:
    with pytest.raises(DataError, match=r"r\.csv:2: column 'query': '2/a.png' is no number, and the dataset names no"):
        read(HEAD + "0,2/a.png,1\n", asked=Nameless())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*none\.csv: No such file"):
        read_results(tmp_path / "none.csv", Asked(), "theirs")
