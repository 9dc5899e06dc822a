"""Evaluation: held-out tasks of the families, real tables and requests written by hand, judged by code."""
