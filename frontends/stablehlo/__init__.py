"""stablehlo package."""
