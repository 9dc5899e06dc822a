"""Families of tasks that are made by seed: an endless stream of them for training, held-out ones for the test."""
