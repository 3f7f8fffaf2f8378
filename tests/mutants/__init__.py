"""Bugs planted into a copy of the package, to see that the tests find them: python -m tests.mutants"""
