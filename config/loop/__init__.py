"""One turn of the loop without people: simulated raters who submit through the HTTP endpoints like everybody else."""
