"""Strict, two-way conversion between published weights and jaxmed models."""

from jaxmed.weights.converted import preprocessing, read_facts, write_folder
from jaxmed.weights.load import load_weights, to_state_dict
from jaxmed.weights.match import Report
from jaxmed.weights.reader import read_state_dict

__all__ = ["Report", "load_weights", "preprocessing", "read_facts", "read_state_dict", "to_state_dict", "write_folder"]
