"""Partition: from one program for all devices to the program of each."""
