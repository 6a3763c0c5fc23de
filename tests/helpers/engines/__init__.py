"""Calling, watching and resolving both engines, and scripts that take no time in place of the stages' own."""
