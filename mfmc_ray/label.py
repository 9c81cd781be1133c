"""The label of a published picture: what it is made of, in IPTC's words, as XMP."""

from __future__ import annotations

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
SYNTHETIC = _SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
"""The digital source type of a picture with parts that a trained model made (IPTC NewsCodes)."""
ALTERED = _SOURCE_TYPES + "algorithmicallyEnhanced"
"""That of a picture in which parts are merely covered: "Algorithmically-altered media"."""


def label(source_type: str) -> bytes:
    """The XMP packet that says where a picture comes from (IPTC Photo Metadata Standard, "Digital Source Type"), and nothing else."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<Iptc4xmpExt:DigitalSourceType>{source_type}"
        '</Iptc4xmpExt:DigitalSourceType></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


XMP = label(SYNTHETIC)
LABELS = frozenset({XMP, label(ALTERED)})
"""What may be in a published picture."""
