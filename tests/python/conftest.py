# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the Python tests.

Run as `make test` does, with PYTHONPATH=python and MEMLAYERS_LIBRARY set.
"""

import pytest
import torch

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(7)
