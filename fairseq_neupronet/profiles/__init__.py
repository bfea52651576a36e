"""Who belongs together, and what is remembered of a group: partitions, protocols, enrolment and normalization."""
