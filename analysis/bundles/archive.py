"""The file of a bundle: a ZIP archive that is refused unless each member is plain, small and as declared."""

import hashlib
import io
import json
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.foundation.errors import UserError
from nas.foundation.files import read_file
from nas.foundation.validation import parse_json

CRATE = "ro-crate-metadata.json"
"""The member that declares all others, with their checksums."""

MAX_BYTES = 200_000_000
MAX_UNPACKED_BYTES = 500_000_000
MAX_ARRAY_BYTES = 1_000_000_000
"""All arrays of all trajectories together, by what their headers say."""

_MAX_MEMBERS = 50_000
_MAX_JSON_BYTES = 100_000_000
_MAX_PATH_LENGTH = 200
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*){0,4}")
"""Of a member; no part begins with a dot."""

_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that ZIP knows: the same files give the same bytes."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """Returns a ZIP archive of files by their paths; the same files give the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(files):
            member = zipfile.ZipInfo(path, _TIME)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3  # Unix on every system, for the same bytes.
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, files[path])
    return content.getvalue()


def unpack(path: str | Path) -> dict[str, bytes]:
    """Reads all files of a bundle, by their paths in it; writes none.

    Raises:
        UserError: the file is no bundle, is damaged, or has members that no bundle has.
    """
    content = read_file(path, "a bundle", MAX_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            _check_members(members)
            files = {member.filename: archive.read(member) for member in members}
        _check_declared(files)
        _check_arrays(files)
    # What a damaged archive may raise.
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: not a bundle: {error}; fetch or write it again") from None
    return files


def sha256(content: bytes) -> str:
    """Returns the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    """Checks what the directory of the archive says, before anything is unpacked."""
    if len(members) > _MAX_MEMBERS:
        raise ValueError(f"it has {len(members):,} files, more than {_MAX_MEMBERS:,}")
    for member in members:
        name = member.orig_filename
        if len(name) > _MAX_PATH_LENGTH or not _PATH.fullmatch(name):
            raise ValueError(f"the path {name[:_MAX_PATH_LENGTH]!r} leads elsewhere or is unusual")
        mode = member.external_attr >> 16
        if mode and not stat.S_ISREG(mode):
            raise ValueError(f"{name} is a link, a folder or a device")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is encrypted, or compressed in an unusual way")
    name, number = Counter(member.filename for member in members).most_common(1)[0] if members else ("", 0)
    if number > 1:
        raise ValueError(f"{name} is there {number} times")
    if (num_bytes := sum(member.file_size for member in members)) > MAX_UNPACKED_BYTES:
        raise ValueError(f"it unpacks to {num_bytes:,} bytes, more than {MAX_UNPACKED_BYTES:,}")


def _check_declared(files: Mapping[str, bytes]) -> None:
    """Checks that the metadata declare exactly the files that are there, with their checksums."""
    if CRATE not in files:
        raise ValueError(f"{CRATE} is missing")
    declared = _declared(read_member(files[CRATE], CRATE))
    for path in sorted({*declared, *files} - {CRATE}):
        if path not in files:
            raise ValueError(f"{path} is declared and missing")
        if path not in declared:
            raise ValueError(f"{path} is not declared in {CRATE}")
        if sha256(files[path]) != declared[path]:
            raise ValueError(f"the checksum of {path} differs from the one in {CRATE}")


def _declared(crate: Any) -> dict[str, str]:
    """The checksum of each file, by its path."""
    try:
        found = [entity for entity in crate["@graph"] if entity["@type"] == "File"]
        declared = {str(entity["@id"]): str(entity["sha256"]) for entity in found}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{CRATE} is no RO-Crate metadata of a bundle ({error})") from None
    if len(declared) < len(found):
        raise ValueError(f"{CRATE} declares a file twice")
    return declared


def _check_arrays(files: Mapping[str, bytes]) -> None:
    """Checks that all arrays together fit into memory."""
    num_bytes = 0
    for path, content in files.items():
        if path.endswith(".npz"):
            try:
                with zipfile.ZipFile(io.BytesIO(content)) as arrays:
                    num_bytes += sum(member.file_size for member in arrays.infolist())
            except zipfile.BadZipFile as error:
                raise ValueError(f"{path}: {error}") from None
    if num_bytes > MAX_ARRAY_BYTES:
        raise ValueError(f"its arrays unpack to {num_bytes:,} bytes, more than {MAX_ARRAY_BYTES:,}")


def read_member(content: bytes, path: str) -> Any:
    """Parses a member that is JSON.

    Raises:
        ValueError: it is not.
    """
    try:
        if len(content) > _MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {_MAX_JSON_BYTES:,} bytes")
        return parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None


def to_json(content: Any) -> bytes:
    """JSON as bundles hold it: without NaN, in a fixed order."""
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
