"""Checkpoints are read without being run."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfmc_ray.evaluate.torchfile import TorchFileError, state_dict


def program(*steps: bytes) -> bytes:
    return b"\x80\x02" + b"".join(steps) + b"."


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little", signed=True)


def tensor(key: str, shape: tuple[int, ...], strides: tuple[int, ...], start: int = 0, count: int = 6, kind: str = "FloatStorage") -> bytes:
    """What `torch.save` writes of one."""
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    sizes, steps = (b"(" + b"".join(map(number, some)) + b"t" for some in (shape, strides))
    hooks = b"ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(start) + sizes + steps + b"\x89" + hooks + b"tR"


def saved(path: Path, steps: bytes, data: bytes = np.arange(6, dtype="<f4").tobytes()) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", steps)
        archive.writestr("net/byteorder", "little")
        archive.writestr("net/data/0", data)
    return path


def test_tensors_come_out_as_they_went_in(tmp_path: Path) -> None:
    entries = (
        b"(" + text("a") + tensor("0", (2, 3), (3, 1)) + text("b") + tensor("0", (3, 2), (1, 3)) + text("c") + tensor("0", (), (), 5) + b"u"
    )
    found = state_dict(saved(tmp_path / "net.pth", program(b"ccollections\nOrderedDict\n)R", entries)))
    whole = np.arange(6, dtype=np.float32)
    assert list(found) == ["a", "b", "c"]
    np.testing.assert_array_equal(found["a"], whole.reshape(2, 3))
    np.testing.assert_array_equal(found["b"], whole.reshape(2, 3).T)
    assert found["c"].shape == ()
    assert found["c"] == 5


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/it-was-run"),))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (pickle.dumps({"a": Evil()}, protocol=2), "it calls|not known"),
        (pickle.dumps({"a": 1}, protocol=2), "other than tensors"),
        (pickle.dumps([1, 2], protocol=2), "not known"),
        (pickle.dumps(OrderedDict(a=Evil()), protocol=4), "not known"),
        (program(b"}" + text("a") + tensor("0", (3, 3), (3, 1)) + b"s"), "larger than its storage"),
        (program(b"}" + text("a") + tensor("0", (2, 3), (3, 1), start=1) + b"s"), "larger than its storage"),
        (program(b"}" + text("a") + tensor("0", (2, 3), (-3, 1)) + b"s"), "larger than its storage"),
        (program(b"}" + text("a") + tensor("0", (2,), (1,), count=7) + b"s"), "has 6 numbers"),
        (program(b"}" + text("a") + tensor("1", (2,), (1,)) + b"s"), "no item"),
        (program(b"}" + text("a") + tensor("0", (2,), (1,), kind="ByteStorage") + b"s"), "cannot|can be read"),
        (program(b"t"), "can be read"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, steps: bytes, message: str) -> None:
    with pytest.raises(TorchFileError, match=message):
        state_dict(saved(tmp_path / "net.pth", steps))
    assert not Path("/tmp/it-was-run").exists()


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(io.BytesIO(b"no zip").getvalue())
    with pytest.raises(TorchFileError, match="no dict of tensors"):
        state_dict(tmp_path / "net.pth")
