"""Compiled kernels: C++ for processors, and how they are built."""
