"""The folder for sockets: their paths must be short, and the temporary folder of a batch system is not."""

import os

_MAX_BYTES = 107
"""Of the path of a socket, on Linux."""

_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def find_socket_folder(wanted: str, socket: str) -> str | None:
    """The folder to put a socket into.

    Args:
        wanted: the usual folder.
        socket: path of the socket below the folder.

    Returns:
        `wanted` if it can be written and is short enough, else a shorter folder; None if there is none.
    """
    for folder in (wanted, *_SHORT_FOLDERS):
        if len(os.fsencode(f"{folder}/{socket}")) <= _MAX_BYTES and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None
