"""Tables, intervals, plots and pages of a grid's results."""
