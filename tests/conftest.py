"""What all tests share: a cache of their own, and no calls home."""

import os
import tempfile

CACHE = tempfile.TemporaryDirectory(prefix="resdet-tests-")
_ = os.environ.setdefault("RESDET_CACHE", CACHE.name)
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
