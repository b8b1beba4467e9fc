"""Passes over the collectives of a local module; pai.passes.pipelines has their order."""
