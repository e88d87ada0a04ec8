"""The parts of the page: each turns a run into what its template shows, and knows nothing of the others."""
