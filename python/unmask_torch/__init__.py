"""Runs unmask's programs with PyTorch, which differentiates them. docs/programs.md describes the files."""
