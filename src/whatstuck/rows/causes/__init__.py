"""Why a row did not stick: evidence for each cause, and the one that is named."""
