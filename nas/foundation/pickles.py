"""Looking through a pickle before it is read, for what would exhaust the machine.

What a pickle may name, and so call, is for the unpickler's `find_class` to say.
"""

import pickle
import pickletools

_SEQUENCES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "EMPTY_LIST")
_STORES = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_FETCHES = ("GET", "BINGET", "LONG_BINGET", "DUP")


def check_pickle(content: bytes) -> None:
    """Looks at the instructions of a pickle; none of them is carried out.

    A list of twice the same list of twice the same list and so on takes a few bytes a level, and time
    and memory that double with each level as soon as somebody hashes, copies or prints it.

    Raises:
        UnpicklingError: it uses a tuple or a list in more than one place, or asks for a huge memo.
        ValueError: it is no pickle.
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
