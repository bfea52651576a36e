"""Tables of trainings: data sets x variants x folds x seeds, run, resumed, collected and compared."""
