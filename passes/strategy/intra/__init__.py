"""The intra-operator search: which mesh axes split which dimensions of a program's tensors."""
