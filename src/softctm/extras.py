"""Packages that only some commands need: which extra of SoftCTM brings them, and what to say without."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from softctm.errors import MissingPackageError, one_line

EXTRA_OF = {
    "anndata": "embeddings",
    "onnxruntime": "cpu",
    "dask": "cluster",
    "distributed": "cluster",
    "h5py": "embeddings",
    "imagecodecs": "slides",
    "jinja2": "report",
    "markupsafe": "report",
    "matplotlib": "report",
    "onnxscript": "train",
    "openslide": "slides",
    "openslide_bin": "slides",
    "pandas": "embeddings",
    "pyarrow": "embeddings",
    "safetensors": "train",
    "segmentation_models_pytorch": "train",
    "shapely": "slides",
    "tensorboard": "train",
    "timm": "train",
    "torch": "train",
    "torchvision": "train",
}
"""Importable name → extra of pyproject.toml."""


def require(*modules: str) -> None:
    """Make sure that packages are installed, without importing them: before slow imports that need them.

    Parameters
    ----------
    *modules : str
        Importable names.

    Raises
    ------
    MissingPackageError
        If one is not; the message says how to install it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise missing(module)


def require_extra(extra: str) -> None:
    """`require` everything that an extra of pyproject.toml brings."""
    require(*(module for module, name in EXTRA_OF.items() if name == extra))


def imported(module: str) -> Any:
    """Import a package that an extra brings; MissingPackageError where it is not installed, or broken."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing(module) from error
    except (ImportError, RuntimeError) as error:  # the latter from torchvision beside another torch
        raise broken(module, one_line(error)) from error


def missing(module: str) -> MissingPackageError:
    """The error of a package that is not installed."""
    package = module.partition(".")[0]
    return MissingPackageError(f"{package} is not installed; install it: {_remedy(package)}")


def broken(module: str, reason: str) -> MissingPackageError:
    """The error of a package that is installed but cannot be imported."""
    package = module.partition(".")[0]
    if package == "torchvision":
        return MissingPackageError(
            f"torchvision does not fit the installed torch ({reason}); install both in one command: "
            "pip install --force-reinstall -e '.[train]' in SoftCTM's folder"
        )
    return MissingPackageError(
        f"{package} is installed but cannot be imported ({reason}); install it again: {_remedy(package)}"
    )


def _remedy(package: str) -> str:
    extra = EXTRA_OF.get(package)
    remedy = f"pip install -e '.[{extra}]' in SoftCTM's folder" if extra else "pip install -e ."
    return f"{remedy} ('.[gpu]' for CUDA)" if package == "onnxruntime" else remedy
