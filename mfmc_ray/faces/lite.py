"""TensorFlow Lite networks of `models.lock`."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from mfmc_ray.faces import runtime
from mfmc_ray.faces.faces import F32, Image
from mfmc_ray.faces.store import ModelError, model_path


class LiteNetwork:
    """One that is given pictures.

    Args:
        name: its file's in `models.lock`.
        threads: CPU threads; None: as `runtime.use` has settled.

    Raises:
        ModelError: when the weights cannot be had.
    """

    def __init__(self, name: str, threads: int | None = None) -> None:
        self.name = name
        self._threads = runtime.threads(threads)
        self._nets = threading.local()  # an interpreter serves one thread
        self.interpreter()

    def interpreter(self) -> Any:
        """This thread's."""
        net = getattr(self._nets, "net", None)
        if net is None:
            net = self._nets.net = Interpreter(str(model_path(self.name)), num_threads=self._threads)
            net.allocate_tensors()
        return net

    def __call__(self, pictures: Image) -> list[F32]:
        """Its outputs, in its order, for pictures uint8 (n, h, w, 3) of the size that it takes.

        Raises:
            ModelError: they are no numbers.
        """
        net = self.interpreter()
        net.set_tensor(net.get_input_details()[0]["index"], pictures / np.float32(255))
        net.invoke()
        outputs = [net.get_tensor(output["index"]) for output in net.get_output_details()]
        if not all(np.isfinite(output).all() for output in outputs):
            raise ModelError(f"the network {self.name} gives what is no number: run `mfmc models pull`, which checks its file")
        return outputs
