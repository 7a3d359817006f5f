"""Writes published datasets in the forms in which people keep them, with few and small images.

``python tests/published_files.py FORM FOLDER [IMAGES]`` writes one.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import struct
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from metabench_plugins.raw.class_lists import SPLITS, class_list

Pixels = npt.NDArray[np.uint8]

#: The classes of CIFAR-100 in each superclass.
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}


#: Blue of all images.
BLUE = 30
#: Difference of colours that JPEG leaves visible.
STEP = 8


def picture(number: int, index: int, side: int, height: int | None = None) -> Pixels:
    """Return image `index` of class `number`, [H, W, 3], of which no two are equal.

    Red tells the image, green in the left and right half the class; the top row is brighter.
    """
    pixels = np.empty((height or side, side, 3), np.uint8)
    pixels[..., 0], pixels[..., 2] = STEP * (index % 25), BLUE
    pixels[:, : side // 2, 1] = STEP * (number % 25)
    pixels[:, side // 2 :, 1] = STEP * (number // 25)
    pixels[0] += 20
    return pixels


def pictures(number: int, count: int, side: int) -> Pixels:
    """Return the [n, side, side, 3] images of a class."""
    return np.stack([picture(number, index, side) for index in range(count)])


def shuffled(images: Pixels, labels: Sequence[int]) -> tuple[Pixels, list[int]]:
    """Return images and labels in an order in which classes are mixed."""
    order = np.random.default_rng(0).permutation(len(images))
    return images[order], [labels[row] for row in order]


# ------------------------------------------------------------------------------------------ pickles of Python 2


class Python2Pickler(pickle._Pickler):  # the pickler in C writes protocol 2 of Python 3 only
    """Writes what Python 2 and NumPy 1 wrote: texts and bytes are one type."""

    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, file: Any) -> None:
        super().__init__(file, protocol=2)

    def save_text(self, value: bytes | str) -> None:
        content = value if isinstance(value, bytes) else value.encode("latin1")
        short = len(content) < 256
        self.write(pickle.SHORT_BINSTRING if short else pickle.BINSTRING)
        self.write((struct.pack("<B", len(content)) if short else struct.pack("<i", len(content))) + content)
        self.memoize(value)

    dispatch[bytes] = save_text
    dispatch[str] = save_text

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch[type] = save_global
    dispatch[type(len)] = save_global


def write_pickle(path: Path, content: Any, python2: bool = False, protocol: int = 4) -> None:
    """Write a pickle of Python 2 or 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        if python2:
            Python2Pickler(file).dump(content)
        else:
            pickle.dump(content, file, protocol=protocol)


def write_image(path: Path, pixels: Pixels) -> None:
    """Write an image file; JPEG in its best quality."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)


# ------------------------------------------------------------------------------------------ miniImageNet


def mini_caches(folder: Path, count: int = 3, side: int = 84, python2: bool = False, val: str = "val") -> None:
    """Write the caches of Ren et al.; class_dict has the rows of each class, which are not in order."""
    for split, wnids in class_list("miniimagenet").items():
        images = np.concatenate([pictures(mini_number(wnid), count, side) for wnid in wnids])
        images, labels = shuffled(images, np.repeat(range(len(wnids)), count).tolist())
        rows = {wnid: [row for row, label in enumerate(labels) if label == c] for c, wnid in enumerate(wnids)}
        name = val if split == "val" else split
        content = {"image_data": images, "class_dict": rows}
        write_pickle(folder / f"mini-imagenet-cache-{name}.pkl", content, python2)


def mini_pickles(folder: Path, count: int = 3, side: int = 84) -> None:
    """Write the pickles of Gidaris & Komodakis; labels go on from split to split."""
    first = 0
    names = {"train": "train_phase_train", "val": "val", "test": "test"}
    for split, wnids in class_list("miniimagenet").items():
        images = np.concatenate([pictures(mini_number(wnid), count, side) for wnid in wnids])
        numbers = range(first, first + len(wnids))
        images, labels = shuffled(images, np.repeat(numbers, count).tolist())
        content = {"data": images, "labels": labels, "catname2label": dict(zip(wnids, numbers, strict=True))}
        if split != "train":
            content["label2catname"] = dict(zip(numbers, wnids, strict=True))
        write_pickle(folder / f"miniImageNet_category_split_{names[split]}.pickle", content, protocol=2)
        first += len(wnids)


def mini_lists(folder: Path, count: int = 3, side: int = 84, easyfsl: bool = False) -> None:
    """Write photographs and the CSV files of Ravi & Larochelle, or those of easyfsl."""
    for split, wnids in class_list("miniimagenet").items():
        lines = [("class_name", "image_name") if easyfsl else ("filename", "label")]
        for wnid in wnids:
            for index in range(count):
                name = f"{wnid}_{index + 1}.JPEG" if easyfsl else f"{wnid}{index + 1:08d}.jpg"
                place = folder / "images" / wnid / name if easyfsl else folder / "images" / name
                write_image(place, picture(mini_number(wnid), index, side, side + 8))
                lines.append((wnid, name) if easyfsl else (name, wnid))
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)


def mini_folders(folder: Path, count: int = 3, side: int = 84) -> None:
    """Write photographs in a folder for each class of each split."""
    for split, wnids in class_list("miniimagenet").items():
        for wnid in wnids:
            for index in range(count):
                pixels = picture(mini_number(wnid), index, side)
                write_image(folder / split / wnid / f"{wnid}_{index}.jpg", pixels)


def mini_number(wnid: str) -> int:
    """Return the number of a class in the sorted wnids of miniImageNet."""
    return sorted(name for wnids in class_list("miniimagenet").values() for name in wnids).index(wnid)


# ------------------------------------------------------------------------------------------ tieredImageNet


def tiered_pngs(folder: Path, count: int = 2, side: int = 16, python2: bool = False) -> None:
    """Write the pickled lists of PNG images of Ren et al., as `cv2.imencode` returns them: [n, 1] bytes."""
    for split, images, labels in tiered_splits(count, side):
        encoded = [np.frombuffer(png(pixels), np.uint8)[:, None].copy() for pixels in images]
        write_pickle(folder / f"{split}_images_png.pkl", encoded, python2)
        names = [f"word {label}" for label in sorted(set(labels))]
        content = {"label_specific": np.array(labels), "label_specific_str": names}
        write_pickle(folder / f"{split}_labels.pkl", content, python2)


def tiered_arrays(folder: Path, count: int = 2, side: int = 16, compressed: bool = False) -> None:
    """Write the arrays of MetaOptNet, in OpenCV's order of channels; labels go on from split to split."""
    first = 0
    for split, images, labels in tiered_splits(count, side):
        folder.mkdir(parents=True, exist_ok=True)
        save: Callable[..., None] = np.savez_compressed if compressed else np.savez
        save(folder / f"{split}_images.npz", images=images[..., ::-1])
        write_pickle(folder / f"{split}_labels.pkl", {"labels": [first + label for label in labels]}, protocol=2)
        first += len(set(labels))


def tiered_folders(folder: Path, count: int = 2, side: int = 16, lists: bool = False) -> None:
    """Write a folder for each class: of each split, or anywhere, with the JSON lists of easyfsl."""
    number = 0
    for split, wnids in class_list("tieredimagenet").items():
        place = "ILSVRC" if lists else split
        for wnid in wnids:
            for index in range(count):
                write_image(folder / place / wnid / f"{wnid}_{index}.png", picture(number, index, side))
            number += 1
        if lists:
            content = {"class_names": list(wnids), "class_roots": [f"{place}/{wnid}" for wnid in wnids]}
            (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")


def tiered_splits(count: int, side: int) -> Iterable[tuple[str, Pixels, list[int]]]:
    """Yield name, images and labels from 0 of each split; classes are mixed."""
    first = 0
    for split, wnids in class_list("tieredimagenet").items():
        images = np.concatenate([pictures(first + c, count, side) for c in range(len(wnids))])
        yield (split, *shuffled(images, np.repeat(range(len(wnids)), count).tolist()))
        first += len(wnids)


def png(pixels: Pixels) -> bytes:
    """Return the content of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


# ------------------------------------------------------------------------------------------ CIFAR-100


def cifar100(folder: Path, count: int = 3, side: int = 32, archive: bool = False) -> None:
    """Write the pickles of CIFAR-100, of Python 2, or their archive: the last image of each class is in "test"."""
    fine = sorted(name for names in SUPERCLASSES.values() for name in names.split())
    coarse = sorted(SUPERCLASSES)
    of_fine = {name: coarse.index(title) for title, names in SUPERCLASSES.items() for name in names.split()}
    place = folder / "cifar-100-python"
    for part, indices in (("train", range(count - 1)), ("test", [count - 1])):
        images = np.stack([picture(c, index, side) for c in range(100) for index in indices])
        images, labels = shuffled(images, np.repeat(range(100), len(indices)).tolist())
        content = {
            "filenames": [f"{fine[label]}_s_{row:06d}.png" for row, label in enumerate(labels)],
            "batch_label": f"{part} batch 1 of 1",
            "fine_labels": labels,
            "coarse_labels": [of_fine[fine[label]] for label in labels],
            "data": images.transpose(0, 3, 1, 2).reshape(len(images), -1),
        }
        write_pickle(place / part, content, python2=True)
    write_pickle(place / "meta", {"fine_label_names": fine, "coarse_label_names": coarse}, python2=True)
    if archive:
        with tarfile.open(folder / "cifar-100-python.tar.gz", "w:gz") as file:
            file.add(place, "cifar-100-python")
        for path in place.iterdir():
            path.unlink()
        place.rmdir()


def cifar_pickles(folder: Path, count: int = 3, side: int = 32, name: str = "CIFAR_FS_{}.pickle") -> None:
    """Write a pickle for each split; labels go on from split to split."""
    first = 0
    counts = (60, 20, 20) if name.startswith("FC100") else (64, 16, 20)
    for split, classes in zip(SPLITS, counts, strict=True):
        numbers = range(first, first + classes)
        images = np.concatenate([pictures(number, count, side) for number in numbers])
        images, labels = shuffled(images, np.repeat(numbers, count).tolist())
        write_pickle(folder / name.format(split), {"data": images, "labels": labels}, protocol=2)
        first += classes


def cifar_folders(folder: Path, count: int = 3, side: int = 32) -> None:
    """Write a folder for each class, as Bertinetto et al."""
    for number, name in enumerate(sorted(name for names in SUPERCLASSES.values() for name in names.split())):
        for index in range(count):
            write_image(folder / "cifar100" / "data" / name / f"{index}.png", picture(number, index, side))


# ------------------------------------------------------------------------------------------ others


def cub(folder: Path, count: int = 3, side: int = 30, bird: bool = True) -> None:
    """Write a folder for each species, with white birds, and the lists of images and bounding boxes."""
    names, boxes = [], []
    for number in range(200):
        species = "Black_footed_Albatross" if number == 0 else f"Species_{number}"
        for index in range(count):
            pixels = picture(number, index, side)
            if bird:
                pixels[10:20, 5:15] = 250
            name = f"{number + 1:03d}.{species}/{species}_{index:04d}_{number}.jpg"
            write_image(folder / "images" / name, pixels)
            names.append(f"{len(names) + 1} {name}")
            boxes.append(f"{len(names)} 5.0 10.0 10.0 10.0")
    (folder / "images.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (folder / "bounding_boxes.txt").write_text("\n".join(boxes) + "\n", encoding="utf-8")


def emnist(folder: Path, count: int = 3, compressed: bool = False) -> None:
    """Write the four files of EMNIST by class, whose images lie on their side."""
    for part, indices in (("train", range(count - 1)), ("test", [count - 1])):
        images = np.stack([picture(c, index, 28)[..., 1] + np.uint8(index) for c in range(62) for index in indices])
        images, labels = shuffled(images, np.repeat(range(62), len(indices)).tolist())
        for kind, array in (("images-idx3", images.transpose(0, 2, 1)), ("labels-idx1", np.array(labels, np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = header + np.ascontiguousarray(array).tobytes()
            path = folder / "raw" / f"emnist-byclass-{part}-{kind}-ubyte{'.gz' * compressed}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(content) if compressed else content)


def class_folders(folder: Path, names: Sequence[str], count: int = 3, side: int = 20) -> None:
    """Write a folder of images for each name."""
    for number, name in enumerate(names):
        for index in range(count):
            write_image(folder / name / f"{name}_{index}.jpg", picture(number, index, side))


def eurosat(folder: Path, count: int = 3) -> None:
    """Write the ten folders of EuroSAT."""
    class_folders(folder / "2750", [f"Use{number}" for number in range(10)], count, 64)


def cropdisease(folder: Path, count: int = 3) -> None:
    """Write the 38 folders of CropDisease, and a folder "test" that is not read."""
    class_folders(folder / "dataset" / "train", [f"Leaf___{number:02d}" for number in range(38)], count)
    class_folders(folder / "dataset" / "test", ["Leaf___00"], 1)


def isic(folder: Path, count: int = 3) -> None:
    """Write the images and the table of ISIC 2018, task 3."""
    kinds = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    lines = [["image", *kinds]]
    for number in range(7):
        for index in range(count):
            name = f"ISIC_{number:03d}{index:04d}"
            write_image(folder / "ISIC2018_Task3_Training_Input" / f"{name}.jpg", picture(number, index, 40, 30))
            lines.append([name, *("1.0" if kind == kinds[number] else "0.0" for kind in kinds)])
    place = folder / "ISIC2018_Task3_Training_GroundTruth"
    place.mkdir()
    with open(place / "ISIC2018_Task3_Training_GroundTruth.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


def chestx(folder: Path, count: int = 3) -> None:
    """Write the images and the table of ChestX-ray8: some images have no finding, another one, or several."""
    findings = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax")
    lines = [["Image Index", "Finding Labels", "Follow-up #"]]
    for number, finding in enumerate([*findings, "No Finding", "Hernia", "Effusion|Mass"]):
        for index in range(count):
            name = f"{number:08d}_{index:03d}.png"
            write_image(folder / "images" / name, picture(number, index, 32)[..., 1] + np.uint8(index))
            lines.append([name, finding, "0"])
    with open(folder / "Data_Entry_2017.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


def metaalbum(folder: Path, count: int = 3, columns: tuple[str, str] = ("FILE_NAME", "CATEGORY")) -> None:
    """Write a set of Meta-Album of twelve categories."""
    lines = [[*columns, "SUPER_CATEGORY"]]
    for number in range(12):
        for index in range(count):
            name = f"insect_{number}_{index}.jpg"
            write_image(folder / "images" / name, picture(number, index, 128))
            lines.append([name, f" kind {number}", " insect"])
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    info = {"dataset_name": "mini", "image_column_name": columns[0], "category_column_name": columns[1]}
    (folder / "info.json").write_text(json.dumps(info), encoding="utf-8")


#: The forms by name: the folder in METABENCH_DATA, and the function that writes the files.
FORMS: Mapping[str, tuple[str, Callable[..., None]]] = {
    "miniimagenet-caches": ("miniimagenet", mini_caches),
    "miniimagenet-pickles": ("miniimagenet", mini_pickles),
    "miniimagenet-lists": ("miniimagenet", mini_lists),
    "miniimagenet-folders": ("miniimagenet", mini_folders),
    "tieredimagenet-pngs": ("tiered-imagenet", tiered_pngs),
    "tieredimagenet-arrays": ("tiered-imagenet", tiered_arrays),
    "tieredimagenet-folders": ("tiered-imagenet", tiered_folders),
    "cifar100": ("cifar100", cifar100),
    "cifarfs-pickles": ("cifarfs", cifar_pickles),
    "cifarfs-folders": ("cifarfs", cifar_folders),
    "cub": ("CUB_200_2011", cub),
    "emnist": ("EMNIST", emnist),
    "eurosat": ("EuroSAT", eurosat),
    "cropdisease": ("CropDiseases", cropdisease),
    "isic": ("ISIC", isic),
    "chestx": ("chestX", chestx),
    "metaalbum": ("metaalbum/BRD", metaalbum),
}

if __name__ == "__main__":
    form, target, *images = sys.argv[1:]
    name, write = FORMS[form]
    write(Path(target, name), *map(int, images))
    print(f"wrote {form} to {Path(target, name)}")
