"""Shared by tests and doctests: no network, and the warning of `wrap` is already given."""

import os

# Before the import of huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

from purifier import _errors, _wrapping

# The tests of the warning start processes of their own or forget it for a while.
_errors._given.add(_wrapping.PROMISE)
