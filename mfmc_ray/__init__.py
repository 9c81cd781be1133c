"""Ray-distributed anonymization of the faces of an image collection ("My Face My Choice", WACV 2023)."""

import os

__version__ = "0.1.0"

# onnxruntime from 1.29 on would send the names and hashes of models, the machine and this process's name to its maker, and keep them in the
# home folder; it reads this when it is loaded, which is after this in every process
os.environ["ORT_DISABLE_TELEMETRY"] = os.environ.get("ORT_DISABLE_TELEMETRY") or "1"
