"""Reports: pages of HTML that need no network."""
