"""Long runs: rounds of the machine, what they found, and what there is to say about them."""
