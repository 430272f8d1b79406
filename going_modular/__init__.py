"""The code of the course, one module a lesson. Written by `make export`."""
