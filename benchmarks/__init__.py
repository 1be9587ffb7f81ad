"""Measurements that compare variants in one run."""
