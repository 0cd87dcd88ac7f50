"""Small data sets of the same two images of nuclei, in every layout."""

import csv

import numpy as np
import tifffile
from PIL import Image
from scipy.io import savemat

from softctm.nuclei_table import PANNUKE_TYPES, tabulate
from softctm.postprocessing.measured_nuclei import measured_nuclei
from softctm.postprocessing.outlines import outlines
from softctm.writers.label_image import write_label_image
from softctm.writers.nuclei_files import CsvWriter

NAMES = ("first", "second")
SIDE = 48


def drawn():
    """Two images, their instance maps, and the type of each nucleus, 1 inflammatory, 2 connective or 3."""
    cases = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        instances = np.zeros((SIDE, SIDE), np.int32)
        y, x = np.mgrid[:SIDE, :SIDE]
        for number in range(1, 5):
            middle = np.array(divmod(number - 1, 2)) * 22 + 12 + random.uniform(-2, 2, 2)
            instances[(y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= random.uniform(4, 8) ** 2] = number
        image = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        cases.append((image, instances, np.array([0, 1, 2, 2, 3])[: instances.max() + 1]))
    return cases


def write_labels(folder):
    for part in ("images", "instances", "types"):
        (folder / part).mkdir(parents=True)
    for name, (image, instances, kinds) in zip(NAMES, drawn(), strict=True):
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray((instances * 300).astype(np.uint16)).save(folder / "instances" / f"{name}.png")
        with (folder / "types" / f"{name}.csv").open("w", newline="") as file:
            names = ["", "a_inflammatory", "b_connective", "c_dead"]
            csv.writer(file).writerows([("id", "type"), *((i * 300, names[kinds[i]]) for i in range(1, 5))])
    (folder / "organs.csv").write_text("name,organ\nfirst,liver\nsecond,colon\n")


def write_pannuke(folder):
    (folder / "fold1").mkdir(parents=True)
    masks = np.zeros((2, SIDE, SIDE, 6))
    for number, (_, instances, kinds) in enumerate(drawn()):
        for nucleus in range(1, 5):
            # The data's type 1 … 3 is PanNuke's channel 1 … 3: inflammatory, connective, dead.
            masks[number, ..., kinds[nucleus]][instances == nucleus] = nucleus
        masks[number, ..., 5] = instances == 0
    np.save(folder / "fold1/images.npy", np.stack([image for image, _, _ in drawn()]).astype(np.float64))
    np.save(folder / "fold1/masks.npy", masks)
    np.save(folder / "fold1/types.npy", np.array(["Liver", "Colon"]))


def write_monuseg(folder):
    for part in ("Tissue Images", "Annotations"):
        (folder / part).mkdir(parents=True)
    for name, (image, instances, _) in zip(NAMES, drawn(), strict=True):
        tifffile.imwrite(folder / "Tissue Images" / f"{name}.tif", image)
        regions = []
        for polygon in outlines(instances):
            vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in polygon)
            regions.append(f"<Region><Vertices>{vertices}</Vertices></Region>")
        regions.append('<Region><Vertices><Vertex X="1" Y="1"/></Vertices></Region>')  # a slip of the mouse
        text = f"<Annotations><Annotation><Regions>{''.join(regions)}</Regions></Annotation></Annotations>"
        (folder / "Annotations" / f"{name}.xml").write_text(text)


def write_consep(folder):
    for part in ("Images", "Labels"):
        (folder / "Test" / part).mkdir(parents=True)
    for name, (image, instances, kinds) in zip(NAMES, drawn(), strict=True):
        Image.fromarray(image).convert("RGBA").save(folder / "Test/Images" / f"{name}.png")
        content = {
            "inst_map": instances.astype(np.float64),
            "inst_type": kinds[1:, None].astype(np.float64),
            "inst_centroid": np.zeros((4, 2)),
        }
        savemat(folder / "Test/Labels" / f"{name}.mat", content)


def write_results(folder):
    for name, (image, instances, kinds) in zip(NAMES, drawn(), strict=True):
        (folder / name).mkdir(parents=True)
        nuclei = measured_nuclei(image, instances, tabulate(instances, kinds[instances]), mpp=0.25)
        write_label_image(folder / name / "instances.tif", instances)
        with CsvWriter(folder / name / "nuclei.csv", PANNUKE_TYPES) as writer:
            writer.add(nuclei)


WRITERS = {
    "labels": write_labels,
    "pannuke": write_pannuke,
    "monuseg": write_monuseg,
    "consep": write_consep,
    "results": write_results,
}
