"""Environments that a policy acts in: their code in processes that can be killed, and their turns as tokens."""
