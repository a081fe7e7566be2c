"""A fitted model becomes a small, measured, packed bundle. Knows no algorithm by name."""

import os

# onnxruntime has telemetry of its own, which starts at import; this runs before any module here imports it
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
