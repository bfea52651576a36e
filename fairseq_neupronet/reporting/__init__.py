"""From a benchmark's ``results.csv`` to tables, figures and one page; the only package that needs matplotlib."""
