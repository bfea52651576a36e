"""Tables of trainings and what they say: cells, results, statistics and reports."""
