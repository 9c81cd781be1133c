"""What the audit checks, and what it found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LEFT = "faces left as they were"
MATCHES = "same-person matches"
CERTIFICATES = "certificate mismatches"
IDENTITY_CERTIFICATES = "identity certificate mismatches"
IDENTITY_USE = "identities unknown, doubled in an image, or miscounted"
IMAGE_ROWS = "image rows missing, doubled or strange"
FACE_ROWS = "face rows missing, doubled or strange"
VERDICTS = "verdicts that contradict the rows"
PIXELS = "pictures that are not what their verdict says"
COVERS = "redactions that are not opaque"
SEEN = "faces seen on a redaction"
METADATA = "pictures with metadata"
COLUMNS = "columns that must not be published"
UNREADABLE = "unreadable published files"
CHANGED = "published files changed since the run"
MANIFEST = "manifest entries that differ from the run"
KEPT = "kept faces that the access table does not allow"
UNKNOWN = "scanned faces missing from the known-face index"
CHECKS = (
    LEFT, MATCHES, CERTIFICATES, IDENTITY_CERTIFICATES, IDENTITY_USE, IMAGE_ROWS, FACE_ROWS, VERDICTS, PIXELS, COVERS, SEEN, METADATA,
    COLUMNS, UNREADABLE, CHANGED, MANIFEST, UNKNOWN, KEPT,
)  # fmt: skip
"""Every check; of each the number wanted is 0."""

EXAMPLES = 10
"""Violations of a check that are named."""


@dataclass
class Findings:
    """Violations: how many by check, and where the first of them are."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, check: str, where: str) -> None:
        """One more."""
        self.counts[check] += 1
        if len(some := self.examples.setdefault(check, [])) < EXAMPLES:
            some.append(where)

    def merge(self, counts: Mapping[str, int], examples: Mapping[str, Sequence[str]]) -> None:
        """Those of a part."""
        self.counts.update(counts)
        for check, some in examples.items():
            self.examples[check] = [*self.examples.get(check, []), *some][:EXAMPLES]
