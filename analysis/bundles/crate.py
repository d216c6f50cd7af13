"""RO-Crate metadata of a bundle: what each file is, with its size and checksum.

Source: RO-Crate Metadata Specification 1.1, https://w3id.org/ro/crate/1.1.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from analysis.bundles.archive import sha256, to_json

_SPECIFICATION = "1.1"
_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".npz": "application/zip",
    ".yaml": "application/yaml",
}


def describe_files(files: Mapping[str, bytes], experiment: str, version: str, newest_ms: int) -> bytes:
    """Returns `ro-crate-metadata.json` of these files, by their paths.

    Args:
        version: of tfnas, which writes the bundle.
        newest_ms: when its newest run started, since 1970: the time of writing would change the bytes.
    """
    # Here, since only writing a bundle needs it.
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version=_SPECIFICATION)
    crate.name = f"tfnas experiment {experiment}"
    crate.description = (
        "Searches for neural architectures, and trainings, of an experiment: grid and claims as registered, "
        "lookup tables, trajectories, metrics, derived networks, tables and verdicts"
    )
    crate.datePublished = datetime.fromtimestamp(newest_ms / 1000, UTC)
    crate.license = "None is stated; ask whoever published this bundle"
    software = ContextEntity(
        crate, "#tfnas", {"@type": "SoftwareApplication", "name": "tfnas", "softwareVersion": version}
    )
    crate.add(software)
    # The specification's own terms have none for checksums.
    crate.metadata.extra_terms["sha256"] = "https://schema.org/sha256"
    for path in sorted(files):
        suffix = path[path.rfind(".") :]
        crate.add_file(
            dest_path=path,
            properties={
                "name": path.rpartition("/")[2],
                "encodingFormat": _TYPES.get(suffix, "text/plain"),
                "contentSize": str(len(files[path])),
                "sha256": sha256(files[path]),
            },
        )
    return to_json(crate.metadata.generate())
