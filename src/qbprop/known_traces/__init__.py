"""The certified traces of the shipped list of known findings."""
