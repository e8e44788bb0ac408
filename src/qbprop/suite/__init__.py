"""What ``pytest --pyargs qbprop.suite`` runs: the machine, in the size of the chosen profile."""
