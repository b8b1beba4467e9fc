"""cpu package."""
