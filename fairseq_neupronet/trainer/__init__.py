"""fairseq's trainer made restartable and exact: what is changed in fairseq, and what that stands on."""
