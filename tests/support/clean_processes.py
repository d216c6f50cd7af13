"""Processes for tests that kill one: forked from a server that has only imported the package.

A fork of the test process itself would inherit what earlier tests left there, such as threads of autograd,
after which torch refuses to compute gradients.
"""

import multiprocessing

CLEAN_PROCESSES = multiprocessing.get_context("forkserver")
CLEAN_PROCESSES.set_forkserver_preload(
    ["nas.search.search", "nas.supernet.compiled.compiled_block", "tests.support.tiny"]
)
