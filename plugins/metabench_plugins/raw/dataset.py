"""A published dataset, read in any of the forms in which people keep it."""

from __future__ import annotations

import abc
import contextlib
import http.client
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from metabench import api
from metabench.api import ClassImages, DataError, DatasetFiles, Inspection, Pack, Progress
from metabench_plugins.images.classes import PhotoClass, packed
from metabench_plugins.images.config import ImageConfig
from metabench_plugins.images.decoding import Pixels
from metabench_plugins.images.reading import image_in
from metabench_plugins.raw.class_lists import SPLITS
from metabench_plugins.raw.forms import Form, Found, Search, anything

#: Mean and standard deviation of ImageNet's channels, as torchvision's networks have them.
IMAGENET: tuple[Sequence[float], Sequence[float]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: What is known of datasets made of classes of ImageNet-1k (`metabench.api.Dataset.found_in`).
OF_IMAGENET = {"ImageNet": "the test classes and their images are in it"}
#: What the page of CUB-200-2011 warns of.
BIRDS_OF_IMAGENET = {"ImageNet": "it has species of birds, too, and some images of CUB-200-2011, as its authors warn"}
#: Mean and standard deviation of miniImageNet, as MetaOptNet (Lee et al. 2019) and RFS (Tian et al. 2020) have them.
MINIIMAGENET: tuple[Sequence[float], Sequence[float]] = (
    tuple(mean / 255 for mean in (120.39586422, 115.59361427, 104.54012653)),
    tuple(std / 255 for std in (70.68188272, 68.27635443, 72.54505529)),
)
#: Number of classes that a message names.
_NAMED = 5


class PublishedDataset(api.Dataset):
    """Classes of images that others publish, complete, or refused.

    Published images are taken as they are: equal ones in two splits are counted in records, not refused.
    """

    overlapping = True
    #: The files that are looked for.
    search: Search
    #: The published number of images; None where it is not checked.
    images: ClassVar[int | None] = None
    #: The published number of images of each class; None where classes differ.
    images_per_class: ClassVar[int | None] = None
    #: Names of the suites that read the dataset.
    suites: ClassVar[Sequence[str]] = ()
    #: Whether `fetch` can download the files.
    fetched: ClassVar[bool] = False

    config: ImageConfig

    @property
    def known(self) -> Collection[str] | None:
        """Return the names of all classes; None where the files name them."""
        return None

    @property
    def scale(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return mean and standard deviation of each channel, of images scaled to 0 … 1."""
        return IMAGENET

    @abc.abstractmethod
    def members(self, names: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """Return the classes of each split, as indices into the names of all classes."""

    def fetch(self, folder: Path) -> None:
        """Download the files into a folder; a dataset with `fetched` overrides this method."""
        raise NotImplementedError(f"{type(self).__name__} says that its files can be fetched: define fetch(folder)")

    @classmethod
    def at(cls, path: Path) -> PublishedDataset | None:
        """Return the dataset that may be in a folder; None if none can be."""
        return cls(cls.Config())

    @classmethod
    def inspect(cls, path: Path, files: DatasetFiles, progress: Progress) -> Inspection | None:
        """Describe a folder that holds one of the forms; see `metabench.api.Dataset.inspect`."""
        dataset = cls.at(path) if path.is_dir() else None
        located = dataset.search.find([path]) if dataset else None
        if dataset is None or located is None or located[1].place != path:
            return None
        form, found = located
        counts = dict(form.count(found)) if form.count else {}
        if not counts:
            for one in dataset.read(form, found, files.cache, progress):
                counts[one.name] = counts.get(one.name, 0) + len(one.photos)
        problem, members = "", dict[str, Sequence[int]]()
        try:
            for name, count in counts.items():
                dataset.check_class(found, name, count)
            dataset.check_all(found, counts)
            members.update(dataset.members(list(counts)))
        except DataError as error:
            if form.looks is not anything:
                return None  # other people's images with names of ImageNet
            problem = str(error)
        names = list(counts)
        return Inspection(
            form=str(form),
            params=dataset.config.model_dump(mode="json", exclude_unset=True),
            splits={split: {names[c]: counts[names[c]] for c in classes} for split, classes in members.items()},
            classes=counts,
            problems=[problem] if problem else [],
            suites=() if problem else cls.suites,
        )

    def raw_files(self, files: DatasetFiles) -> Sequence[Path]:
        """Return the files and folders of the form that was found."""
        located = self.search.find(files.sources)
        if located is None:
            return []
        form, found = located
        return [*found.parts.values(), *(found.place / path for path in form.beside)]

    def pack(self, files: DatasetFiles, progress: Progress) -> Iterator[ClassImages]:
        """Yield the [n, C, S, S] images of each class.

        Raises:
            DataError: files are missing, damaged, or not of this dataset.
        """
        with _located(self.search, files, self.fetch if self.fetched else None) as (form, found):
            classes = self.read(form, found, files.cache, progress)
            total = sum(len(one.photos) for one in classes) if isinstance(classes, Sequence) else self.images
            counts: dict[str, int] = {}
            for one in classes:
                if one.name in counts:
                    raise DataError(
                        f"{found} has the class '{one.name}' in two splits: those of {self.search.title} for few-shot "
                        "learning share no class. Get the few-shot split"
                    )
                self.check_class(found, one.name, len(one.photos))
                progress_of_class = _after(progress, sum(counts.values()), total)
                counts[one.name] = len(one.photos)
                for part in packed([one], self.config, f"reading {self.search.title}", progress_of_class):
                    yield self.finish(part)
            self.check_all(found, counts)

    def read_image(self, path: Path) -> Pixels:
        """Return the [C, S, S] pixels of a whole image file; see `metabench.api.Dataset.read_image`."""
        pixels: Pixels = self.finish(ClassImages("", image_in(path, self.config)[None])).images[0]
        return pixels

    def split(self, pack: Pack) -> Mapping[str, api.Split]:
        """Return the published splits, without a copy of the images."""
        members = self.members(pack.class_names)
        mean, std = self.scale
        if self.config.channels == 1:
            mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
        return {split: api.Split.of(pack, members[split], mean, std) for split in SPLITS}

    def read(self, form: Form, found: Found, cache: Path, progress: Progress) -> Iterable[PhotoClass]:
        """Return the classes of the files that were found, see `Form.read`."""
        return form.read(found, cache, progress)

    def finish(self, part: ClassImages) -> ClassImages:
        """Return a class as it is packed, from its decoded images."""
        return part

    def check_class(self, found: Found, name: str, count: int) -> None:
        """Check that a class is of this dataset, and complete.

        Args:
            found: the files.
            name: the name of the class.
            count: its number of images.

        Raises:
            DataError: it is not.
        """
        if self.known is not None and name not in self.known:
            raise DataError(
                f"{found} has the class '{name}', which is not one of the {len(self.known)} of {self.search.title}: "
                "get the original files"
            )
        if self.images_per_class is not None and count != self.images_per_class:
            raise DataError(
                f"{found} has {count} images of the class '{name}' of {self.search.title}, expected "
                f"{self.images_per_class}: get the original files again"
            )

    def check_all(self, found: Found, counts: Mapping[str, int]) -> None:
        """Check that all classes and images are there.

        Args:
            found: the files.
            counts: the number of images of each class.

        Raises:
            DataError: some are missing, or there are more.
        """
        missing = sorted(set(self.known or ()) - set(counts))
        if missing:
            more = ", …" if len(missing) > _NAMED else ""
            raise DataError(
                f"{found} lacks {len(missing)} of the {len(self.known or ())} classes of {self.search.title}: "
                f"{', '.join(missing[:_NAMED])}{more}. Get the original files"
            )
        total = sum(counts.values())
        if self.images is not None and total != self.images:
            raise DataError(
                f"{found} has {total} images in {len(counts)} classes of {self.search.title}, expected {self.images}: "
                "get the original files again"
            )


@contextlib.contextmanager
def _located(search: Search, files: DatasetFiles, fetch: Callable[[Path], None] | None) -> Iterator[tuple[Form, Found]]:
    """Yield the files of a dataset; download them if needed, and delete the download when the block ends.

    Raises:
        DataError: the files are missing, and cannot be downloaded.
    """
    found = search.find(files.sources)
    if found is not None:
        yield found
    elif (incomplete := search.incomplete(files.sources)) is not None:
        raise incomplete
    elif fetch is None:
        raise search.missing(files.sources)
    elif not files.download:
        raise search.missing(files.sources, "downloading is switched off")
    else:
        with tempfile.TemporaryDirectory(dir=files.cache, prefix=".download-") as folder:
            yield _fetched(search, files.sources, fetch, Path(folder))


def _fetched(
    search: Search, sources: Sequence[Path], fetch: Callable[[Path], None], folder: Path
) -> tuple[Form, Found]:
    try:
        # Some releases of torchvision print to standard output, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            fetch(folder)
    except (ImportError, OSError, RuntimeError, http.client.HTTPException) as error:
        raise search.missing(sources, f"downloading it failed: {error}") from error
    found = search.find([folder])
    if found is None:
        raise search.missing([folder], "the download lacks files")
    return found


def _after(progress: Progress, before: int, total: int | None) -> Progress:
    """Return a progress that adds the images before those of a class."""

    def shown(done: int, of_class: int, work: str) -> None:
        progress(before + done, max(total or 0, before + of_class), work)

    return shown
