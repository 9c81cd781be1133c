import sys

# openvino works as well without its telemetry; with it, importing it makes an id of the user in the home folder
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
