"""Deterministic exploration of crashes, faults and damage on the simulated disk."""
