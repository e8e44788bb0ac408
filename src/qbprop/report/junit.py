"""A campaign as JUnit XML: what CI servers show."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from qbprop.campaign.summary import Summary
from qbprop.campaign.verdict import verdict

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(summary: Summary, about: Mapping[str, Mapping[str, Any]]) -> str:
    """One test for the campaign, which fails if it did or was blind, and one for each finding.

    A new finding is a failure, and so is one on a QEMU beside; a known one is skipped. ``about``
    are the objects of the ``finding.json`` by id.
    """
    suite = ET.Element("testsuite", name="qbprop", time=f"{summary.seconds:.3f}")
    campaign = _case(suite, "campaign", summary.seconds)
    ended = summary.status in ("finished", "interrupted") and not summary.blind
    if not ended:
        ET.SubElement(campaign, "error", message=verdict(summary))
    for record in summary.findings:
        case = _case(suite, f"{record.id} {record.title}", 0.0)
        if record.known:
            ET.SubElement(case, "skipped", message="a known finding")
            continue
        its = about[record.id]
        failure = ET.SubElement(case, "failure", type=record.kind, message=_text(record.title))
        failure.text = _text(f"expected: {its['expected']}\nobserved: {its['observed']}\n")
    for difference in summary.new_differences:
        told = f"QEMU {difference.qemus[1]}: {difference.outcomes[1]}"
        case = _case(suite, f"{difference.id} {difference.operation}", 0.0)
        ET.SubElement(case, "failure", type="model", message=_text(told))
    new = len(summary.new_findings) + len(summary.new_differences)
    known = len(summary.findings) - len(summary.new_findings)
    suite.set("tests", str(1 + known + new))
    suite.set("failures", str(new))
    suite.set("errors", str(int(not ended)))
    suite.set("skipped", str(known))
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, name: str, seconds: float) -> ET.Element:
    return ET.SubElement(
        suite, "testcase", classname="qbprop", name=_text(name), time=f"{seconds:.3f}"
    )


def _text(text: str) -> str:
    """What XML can hold of a text."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
