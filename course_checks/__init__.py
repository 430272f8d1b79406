"""Checks of the exercises, a module a lesson; `exercise_checks` names them all."""
