"""What the notebooks use and no lesson teaches: data, figures, exercise checks."""
