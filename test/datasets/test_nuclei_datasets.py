"""One contract for all data sets of nuclei, and the faults of each layout."""

import numpy as np
import pytest
from nuclei_cases import NAMES, SIDE, WRITERS, drawn
from PIL import Image
from scipy.io import savemat

from softctm.datasets.nuclei import NUCLEI_DATASETS, UNTYPED, open_nuclei
from softctm.errors import InputError
from softctm.postprocessing.label_overlap import label_overlap

TYPE_NAMES = {
    "labels": ["a_inflammatory", "b_connective", "b_connective", "c_dead"],
    "pannuke": ["inflammatory", "connective", "connective", "dead"],
    "monuseg": ["nucleus"] * 4,
    "consep": ["other", "inflammatory", "inflammatory", "healthy_epithelial"],
    "results": ["neoplastic", "inflammatory", "inflammatory", "connective"],
}


@pytest.mark.parametrize("layout", NUCLEI_DATASETS)
class TestContract:
    @pytest.fixture
    def dataset(self, layout, tmp_path):
        WRITERS[layout](tmp_path)
        opened = open_nuclei(tmp_path)
        assert type(opened) is NUCLEI_DATASETS[layout]
        return opened

    def test_names_and_organs(self, dataset, layout):
        expected = ["fold1_0000", "fold1_0001"] if layout == "pannuke" else list(NAMES)
        assert list(dataset.names) == expected
        assert len(dataset.organs) == 2
        assert dataset.types[0].name == "background"

    def test_nuclei(self, dataset, layout):
        for index, (_, instances, _) in enumerate(drawn()):
            labels = dataset.labels(index)
            assert labels.instances.dtype == np.int32
            overlap = label_overlap(instances, labels.instances)
            assert np.array_equal(labels.instances > 0, instances > 0)
            assert overlap.first.tolist() == [1, 2, 3, 4]
            assert sorted(overlap.second.tolist()) == labels.table.id.tolist()
            kind = dict(zip(labels.table.id.tolist(), labels.table.type.tolist(), strict=True))
            names = [dataset.types[kind[number]].name for number in overlap.second.tolist()]
            assert names == TYPE_NAMES[layout]
            assert (labels.table.type_probability == 1).all()

    def test_images(self, dataset, layout):
        if layout == "results":
            with pytest.raises(InputError, match="holds no image"):
                dataset.image(0)
            return
        for index, (image, _, _) in enumerate(drawn()):
            assert np.array_equal(dataset.image(index), image)


def test_results_know_no_type_called_background(tmp_path):
    WRITERS["results"](tmp_path)
    for table in tmp_path.glob("*/nuclei.csv"):
        table.write_text(table.read_text().replace("connective", "background"))
    dataset = open_nuclei(tmp_path)
    assert [kind.name for kind in dataset.types] == ["background", "inflammatory", "neoplastic"]
    labels = dataset.labels(0)
    assert sorted(labels.table.type.tolist()) == [0, 1, 1, 2]
    assert len(np.unique(labels.instances)) == 5


def test_label_images_without_types(tmp_path):
    WRITERS["labels"](tmp_path)
    for path in (tmp_path / "types").iterdir():
        path.unlink()
    (tmp_path / "types").rmdir()
    (tmp_path / "organs.csv").unlink()
    dataset = open_nuclei(tmp_path)
    assert dataset.types == UNTYPED
    assert dataset.labels(0).table.type.tolist() == [1] * 4
    assert dataset.organs == [None, None]


def test_pannuke_as_unpacked(tmp_path):
    WRITERS["pannuke"](tmp_path)
    for part, files in (("images", ("images", "types")), ("masks", ("masks",))):
        folder = tmp_path / "Fold 1" / part / "fold1"
        folder.mkdir(parents=True)
        for file in files:
            (tmp_path / f"fold1/{file}.npy").rename(folder / f"{file}.npy")
    dataset = open_nuclei(tmp_path)
    assert dataset.organs == ["Liver", "Colon"]
    assert len(dataset.labels(1).table) == 4
    assert open_nuclei(tmp_path / "Fold 1").names == dataset.names


def test_pannuke_reads_no_more_than_is_asked_for(tmp_path):
    """The arrays are memory-mapped, so that opening them reads no pixels."""
    WRITERS["pannuke"](tmp_path)
    dataset = open_nuclei(tmp_path)
    assert all(isinstance(array, np.memmap) for array in dataset._folds[0][:2])


def test_pannuke_where_types_overlap(tmp_path):
    WRITERS["pannuke"](tmp_path)
    masks = np.load(tmp_path / "fold1/masks.npy")
    masks[0] = 0
    masks[0, 2:8, 2:8, 0], masks[0, 5:12, 2:8, 4] = 1, 1
    np.save(tmp_path / "fold1/masks.npy", masks)
    labels = open_nuclei(tmp_path).labels(0)
    assert labels.table.type.tolist() == [1, 5]
    assert labels.table.area_px.tolist() == [3 * 6, 7 * 6]


def test_monuseg_of_a_square_by_hand(tmp_path):
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(tmp_path / "a.png")
    corners = [(2, 1), (6, 1), (6, 5), (2, 5)], [(4, 3), (9, 3), (9, 8), (4, 8)]
    regions = "".join(
        "<Region>" + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in square) + "</Region>"
        for square in corners
    )
    (tmp_path / "a.xml").write_text(f"<Annotations>{regions}</Annotations>")
    expected = np.zeros((10, 12), int)
    expected[3:8, 4:9] = 2
    expected[1:5, 2:6] = 1
    assert np.array_equal(open_nuclei(tmp_path).labels(0).instances, expected)


def test_shared_nuclei(shared):
    """The counts that the folder's README states."""
    consep, monuseg = (open_nuclei(shared / "nuclei" / name) for name in ("consep", "monuseg"))
    assert (len(consep.names), len(monuseg.names)) == (41, 13)
    assert [kind.name for kind in consep.types[1:4]] == ["endothelial", "fibroblast", "healthy_epithelial"]
    assert monuseg.types == UNTYPED
    tables = [monuseg.labels(index).table for index in range(13)]
    assert sum(map(len, tables)) == 4949
    assert consep.image(0).shape == (*consep.labels(0).instances.shape, 3)


def fault(layout, tmp_path, spoil):
    """The message of a data set with one fault."""

    def read():
        dataset = open_nuclei(tmp_path)
        return dataset.labels(0), dataset.image(0)

    WRITERS[layout](tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert "\n" not in message
    return message


def save_mat(**changes):
    content = {"inst_map": drawn()[0][1], "inst_type": np.ones((4, 1)), **changes}
    content = {key: value for key, value in content.items() if value is not None}
    return lambda folder: savemat(folder / "Test/Labels/first.mat", content)


FAULTS = {
    "labels": {
        "second.csv": lambda folder: (folder / "types/second.csv").unlink(),
        "no type": lambda folder: (folder / "types/first.csv").write_text("id,type\n300,x\n"),
        "whole number": lambda folder: (folder / "types/first.csv").write_text("id,type\na,x\n"),
        "columns id,type": lambda folder: (folder / "types/first.csv").write_text("nucleus,type\n1,x\n"),
        "is not an image": lambda folder: (folder / "instances/first.png").write_bytes(b"no image"),
        "two label images are called first": lambda folder: Image.new("L", (4, 4)).save(
            folder / "instances/first.tif"
        ),
        "two dimensions": lambda folder: Image.new("RGB", (4, 4)).save(folder / "instances/first.png"),
        "no image first": lambda folder: (folder / "images/first.png").unlink(),
        "cannot be read as an image": lambda folder: (folder / "images/first.png").write_bytes(b"no image"),
    },
    "pannuke": {
        "masks.npy": lambda folder: (folder / "fold1/masks.npy").unlink(),
        "must be": lambda folder: np.save(folder / "fold1/masks.npy", np.zeros((2, SIDE, SIDE, 5))),
        "organs for 2": lambda folder: np.save(folder / "fold1/types.npy", np.array(["a"] * 3)),
        "cannot be read": lambda folder: np.save(folder / "fold1/types.npy", np.array(["a", None])),
        "negative": lambda folder: np.save(folder / "fold1/masks.npy", -np.ones((2, SIDE, SIDE, 6))),
    },
    "monuseg": {
        "ImageScope": lambda folder: (folder / "Annotations/first.xml").write_text("<Annotations>"),
        "first.xml": lambda folder: (folder / "Annotations/first.xml").write_text(
            "<A><Region><Vertex X='1'/></Region></A>"
        ),
        "no image first": lambda folder: (folder / "Tissue Images/first.tif").unlink(),
        "Tissue Images/first.tif could both be the image of first.xml": lambda folder: Image.new(
            "L", (4, 4)
        ).save(folder / "Annotations/first.png"),
    },
    "consep": {
        "MATLAB": lambda folder: (folder / "Test/Labels/first.mat").write_bytes(b"no matrix"),
        "inst_type is missing": save_mat(inst_type=None),
        "3 rows for 4": save_mat(inst_type=np.ones((3, 1))),
        "1 … 7": save_mat(inst_type=np.full((4, 1), 8)),
        "whole numbers": save_mat(inst_map=drawn()[0][1] * 0.5),
    },
    "results": {
        "as a table": lambda folder: (folder / "first/nuclei.csv").write_text("a,b\n1,2\n"),
        "is not in the map": lambda folder: (folder / "first/nuclei.csv").write_text("id,type\n99,x\n"),
        "as a label image": lambda folder: (folder / "first/instances.tif").write_bytes(b"no image"),
    },
}


@pytest.mark.parametrize(
    ("layout", "message"), [(layout, message) for layout, faults in FAULTS.items() for message in faults]
)
def test_faults_are_named(tmp_path, layout, message):
    assert message in fault(layout, tmp_path, FAULTS[layout][message])


def test_folders_of_no_layout(tmp_path):
    with pytest.raises(InputError, match="none of the layouts"):
        open_nuclei(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        open_nuclei(tmp_path / "absent")
