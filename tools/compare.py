"""`srgnn compare` from a clone."""

from _clone import run

run(__file__)
