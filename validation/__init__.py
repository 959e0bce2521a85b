"""validation: the gate between a staged snapshot and the alias; what is judged, the checks, the suites, the report."""

from __future__ import annotations

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")  # read by Great Expectations when it is imported
