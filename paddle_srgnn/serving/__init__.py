"""Serving: raw item ids in, ranked raw item ids out."""
