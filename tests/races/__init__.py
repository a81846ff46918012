"""Several processes on one store: who decides, who runs, and that nobody does so twice."""
