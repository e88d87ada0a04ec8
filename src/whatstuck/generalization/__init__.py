"""Does what stuck survive other wording and harder cases? Verifiable tasks, their variants, and how models do on them.

After "Debunk the Myth of SFT Generalization" (arXiv 2510.00237): a model trained under one fixed instruction may carry
out what that instruction said whatever the present one says.
"""
