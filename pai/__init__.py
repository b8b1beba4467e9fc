"""pai-compile: turn a model into a distributed program."""
