"""A bucket on this machine for tests, which every client of buckets takes for Google's."""

import os
import sys

import pytest

from support.servers import BucketServer

# Read when gcsfs is first imported: with it gcsfs asks Google's own servers what kind each bucket
# is, and there is no way to name others.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
assert "gcsfs" not in sys.modules


def pointed_at(patch: pytest.MonkeyPatch, url: str) -> None:
    """Point gcsfs, Google's client and tensorstore, here and in processes to come, at a server."""
    patch.setenv("STORAGE_EMULATOR_HOST", url)
    patch.setenv("TENSORSTORE_GCS_HTTP_URL", url)
    patch.setenv("GOOGLE_CLOUD_PROJECT", "tests")
    patch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def bucket(monkeypatch):
    """The empty bucket gs://runs."""
    with BucketServer("runs", {}, page_size=50) as server:
        pointed_at(monkeypatch, server.url)
        yield server
