"""What the code must not do with data from outside: run it, unpickle it, unpack it, or leave the shell to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("mfmc_ray", "jobs", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle", "pty"}
NAMES = {"eval", "exec", "compile", "__import__"}
"""Built-in functions."""
METHODS = {"extractall", "extract", "unpack_archive", "read_pickle", "load_module"}
SAFE_YAML = {"SafeLoader", "CSafeLoader"}


def faults(tree: ast.AST) -> Iterator[str]:
    """What is forbidden in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [name.name for name in node.names] + ([node.module] if isinstance(node, ast.ImportFrom) and node.module else [])
            yield from (f"import {name}" for name in names if name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            yield from _of_call(node)


def _of_call(node: ast.Call) -> Iterator[str]:
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    if name in NAMES or (isinstance(node.func, ast.Attribute) and last in METHODS):
        yield name
    if name in ("os.system", "os.popen") or ("shell" in given and not _is(given["shell"], False)):
        yield f"{name}: a shell"
    if name in ("np.load", "numpy.load") and not _is(given.get("allow_pickle"), False):
        yield f"{name} without allow_pickle=False"
    if name == "torch.load" and not _is(given.get("weights_only"), True):
        yield f"{name} without weights_only=True"
    loader = ast.unparse(given["Loader"]).rpartition(".")[2] if "Loader" in given else ""
    if name in ("yaml.load", "yaml.load_all") and loader not in SAFE_YAML:
        yield f"{name}: unsafe"
    if name.startswith(("yaml.unsafe", "yaml.full")):
        yield f"{name}: unsafe"
    if any(word and "trust_remote" in word and not _is(value, False) for word, value in given.items()):
        yield f"{name}: trust_remote"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_data_is_never_run(path: Path) -> None:
    assert list(faults(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=maybe)",
        "torch.load(path)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(line, shell=True)",
        "subprocess.run(line, shell=maybe)",
        "os.system(line)",
        "tar.extractall(folder)",
        "wheel.extract(member)",
        "shutil.unpack_archive(path)",
        "load_dataset(name, trust_remote_code=True)",
        "pandas.read_pickle(path)",
    ],
)
def test_what_is_forbidden_is_seen(code: str) -> None:
    assert len(list(faults(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.CSafeLoader)",
        "tar.extractfile(member)",
        "re.compile(text)",
        "torch.load(path, weights_only=True)",
        "subprocess.run([program], shell=False)",
    ],
)
def test_what_is_allowed_is_not(code: str) -> None:
    assert list(faults(ast.parse(code))) == []
