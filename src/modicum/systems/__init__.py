"""Whole systems: parts of every kind wired together. May import all; nothing imports it."""
