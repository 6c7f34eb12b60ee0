"""The commands of `tulu` that do not train."""
