"""What the API server would say to a manifest: the custom resources' schemas, closed as it closes them, and Kubernetes' own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = ("1.31", "1.37")
"""The oldest version whose features the manifests use (podFailurePolicy is stable), and the newest that is known here."""
RAY_KINDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml", "RayCronJob": "ray.io_raycronjobs.yaml"}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(path: Path) -> list[dict[str, Any]]:
    """Those of a YAML file; a key that is there twice is an error."""
    return [one for one in yaml.load_all(path.read_text(), Loader=_Strict) if one]


def ray_schemas(folder: Path) -> dict[str, dict[str, Any]]:
    """Kind → its schema in version v1, in which unknown fields are errors."""
    found = {}
    for kind, name in RAY_KINDS.items():
        definition = yaml.load((folder / name).read_text(), Loader=_LOADER)
        (version,) = (one for one in definition["spec"]["versions"] if one["name"] == "v1")
        found[kind] = closed(version["schema"]["openAPIV3Schema"])
    return found


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema that refuses what the API server would prune: fields of an object that are not among its properties."""
    schema = copy.deepcopy(schema)
    for part in _parts(schema):
        if "properties" in part and not part.get("x-kubernetes-preserve-unknown-fields"):
            part.setdefault("additionalProperties", False)
        if part.get("x-kubernetes-int-or-string"):
            part.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
        if part.pop("nullable", False) and isinstance(part.get("type"), str):
            part["type"] = [part["type"], "null"]
    # the API server knows these in every object
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return schema


def faults(document: dict[str, Any], schemas: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong with a manifest; a line each."""
    if document["apiVersion"] == "ray.io/v1":
        schema = schemas[document["kind"]]
        errors = jsonschema.Draft7Validator(schema).iter_errors(document)
        return [f"{error.json_path}: {error.message[:300]}" for error in errors] + list(_twice(document, schema, "$"))
    found = []
    for version in KUBERNETES:
        try:
            assert kubernetes_validate.validate(document, version, strict=True) == version
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {'.'.join(map(str, error.path))}: {error.message[:300]}")
    return found


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for one in schema.get("properties", {}).values():
        yield from _parts(one)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _parts(schema[name])


def _twice(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    """Items of a list that is a map by some of their fields, which are there twice."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name in schema.get("properties", {}):
                yield from _twice(one, schema["properties"][name], f"{where}.{name}")
    elif isinstance(value, list) and "items" in schema:
        defaults = {name: one.get("default") for name, one in schema["items"].get("properties", {}).items()}
        if schema.get("x-kubernetes-list-type") == "map":
            keys = [tuple(one.get(key, defaults.get(key)) for key in schema["x-kubernetes-list-map-keys"]) for one in value]
            yield from (f"{where}: {key} twice" for key in {key for key in keys if keys.count(key) > 1})
        for number, one in enumerate(value):
            yield from _twice(one, schema["items"], f"{where}[{number}]")


class _Strict(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would take the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice: {keys}"
        return super().construct_mapping(node, deep=deep)
