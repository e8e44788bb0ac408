"""What a campaign comes to, in one line."""

from qbprop.campaign.summary import Summary


def verdict(summary: Summary) -> str:
    """New findings, whatever else; else why there may be none."""
    new = len(summary.new_findings)
    if new:
        return f"{new} new finding{'s' * (new != 1)}"
    match summary.status:
        case "running":
            return "nothing new so far, and still running"
        case "finished":
            return "nothing new was found"
        case "interrupted":
            return "interrupted; nothing new was found until then"
        case "failed":
            return "failed: it ended before its time, and nothing new was found until then"
