"""What a campaign comes to, in one line."""

from qbprop.campaign.summary import Summary


def verdict(summary: Summary) -> str:
    """New findings, and whether they can be all; else why there may be none."""
    new = len(summary.new_findings) + len(summary.new_differences)
    found = f"{new} new finding{'s' * (new != 1)}"
    if summary.blind:
        return f"blind: a mistake that was planted was not found; {found}"
    if new:
        return found
    match summary.status:
        case "running":
            return "nothing new so far, and still running"
        case "finished":
            return "nothing new was found"
        case "interrupted":
            return "interrupted; nothing new was found until then"
        case "failed":
            return "failed: it ended before its time, and nothing new was found until then"
