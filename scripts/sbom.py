"""Write the software bill of materials of the system it runs on, as CycloneDX 1.6 JSON on stdout.

`./export.sh` runs it inside the image, which is why it needs nothing but the standard library:

    docker run --rm -i --network none --entrypoint python IMAGE - < scripts/sbom.py > softctm.cdx.json

Lists the Python packages, Debian's packages, the interpreter and the default model's files, with the licenses
that each declares. On any machine, `python scripts/sbom.py --markdown FILE.cdx.json` turns such a file into
the table in docs/licenses.md.
"""

from __future__ import annotations

import datetime
import json
import platform
import re
import sys
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

APP = Path("/opt/app")

Component = dict[str, Any]


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--markdown"]:
        print(markdown(json.loads(Path(arguments[1]).read_text())), end="")
    else:
        json.dump(document(), sys.stdout, indent=1)
        print()


def document() -> dict[str, Any]:
    """The whole bill of materials."""
    found = [interpreter(), *python_packages(), *debian_packages(), *model_files()]
    # An editable installation shows the same package twice.
    components = {component["bom-ref"]: component for component in found}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "component": {
                "type": "container",
                "bom-ref": "softctm",
                "name": "softctm",
                "version": program_version(),
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": [components[reference] for reference in sorted(components)],
    }


def program_version() -> str:
    text = (APP / "src/softctm/__init__.py").read_text()
    match = re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)
    return match[1] if match else "unknown"


def component(kind: str, name: str, version: str, purl: str, licenses: list[str]) -> Component:
    entry: Component = {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licenses:
        entry["licenses"] = [{"license": {"name": license}} for license in licenses]
    return entry


def interpreter() -> Component:
    version = platform.python_version()
    return component("platform", "cpython", version, f"pkg:generic/cpython@{version}", ["PSF-2.0"])


def python_packages() -> Iterator[Component]:
    for package in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        purl = f"pkg:pypi/{name}@{quote(package.version)}"
        yield component("library", name, package.version, purl, python_licenses(package))


def python_licenses(package: metadata.Distribution) -> list[str]:
    """What a package declares: the SPDX expression, else its classifiers, else a short free text."""
    fields: Any = package.metadata
    if expression := fields.get("License-Expression"):
        return [expression]
    classifiers = [
        entry.rpartition(" :: ")[2]
        for entry in fields.get_all("Classifier", [])
        if entry.startswith("License :: ") and not entry.endswith("OSI Approved")
    ]
    text = (fields.get("License") or "").strip()
    short = [text] if text and "\n" not in text and len(text) < 60 else []
    return classifiers or short


def debian_packages() -> Iterator[Component]:
    status = Path("/var/lib/dpkg/status")
    for entry in status.read_text().split("\n\n") if status.is_file() else []:
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.+)$", entry, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={fields['Architecture']}"
            yield component("library", name, version, purl, debian_licenses(name))


def debian_licenses(name: str) -> list[str]:
    """Names of the licenses in a machine-readable copyright file; none where it is prose."""
    path = Path("/usr/share/doc", name, "copyright")
    if not path.is_file():
        return []
    return sorted(set(re.findall(r"^License: *(\S.*?) *$", path.read_text(errors="replace"), re.MULTILINE)))


def model_files() -> Iterator[Component]:
    """Every network file, in every precision, of the models inside, with its hash."""
    weights = APP / "model_weights"
    for manifest in sorted(weights.rglob("model.json")):
        model = json.loads(manifest.read_text())
        version = str(model.get("version", "unknown"))
        networks = [network for stage in model["stages"].values() for network in stage["networks"]]
        for file in (file for network in networks for file in network["files"].values()):
            name = (manifest.parent / file["path"]).relative_to(weights).as_posix()
            purl = f"pkg:generic/{quote(name)}@{quote(version)}"
            entry = component("machine-learning-model", name, version, purl, model.get("licenses", []))
            entry["hashes"] = [{"alg": "SHA-256", "content": file["sha256"]}]
            yield entry


def markdown(bill: dict[str, Any]) -> str:
    """Table of what is inside but for Debian's packages, which differ with the base image's date."""
    rows = ["| component | version | license as declared |", "| --- | --- | --- |"]
    for entry in bill["components"]:
        if not entry["purl"].startswith("pkg:deb/"):
            licenses = ", ".join(item["license"]["name"] for item in entry.get("licenses", []))
            rows.append(f"| {entry['name']} | {entry['version']} | {licenses or 'see its own files'} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
