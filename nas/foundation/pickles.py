"""Inspection of a pickle before it is read, for content that would exhaust the machine.

The unpickler's `find_class` decides what a pickle may name, and therefore call.
"""

import pickle
import pickletools

_SEQUENCES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "EMPTY_LIST")
_STORES = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_FETCHES = ("GET", "BINGET", "LONG_BINGET", "DUP")


def check_pickle(content: bytes) -> None:
    """Inspects the instructions of a pickle without executing any.

    A list that holds the same list twice, which holds the same list twice, and so on, takes a few bytes
    per level. Hashing, copying or printing it takes time and memory that double with each level.

    Raises:
        UnpicklingError: the pickle uses a tuple or a list in more than one place, or asks for a huge memo.
        ValueError: the content is not a pickle.
    """
    memo: dict[int, str] = {}
    previous = ""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in _STORES:
            index = len(memo) if argument is None else int(argument)
            if index > len(content):
                raise pickle.UnpicklingError(f"it asks for a memo of {index} objects")
            memo[index] = previous
            continue
        if opcode.name in _FETCHES:
            fetched = previous if argument is None else memo.get(int(argument), "")
            if fetched in _SEQUENCES:
                raise pickle.UnpicklingError("it uses a tuple or a list in more than one place")
        previous = opcode.name
