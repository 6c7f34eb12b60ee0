"""Post-training recipes: SFT, DPO, reward models, RLVR and evaluation."""
