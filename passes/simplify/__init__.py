"""simplify package."""
