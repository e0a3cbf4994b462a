"""Settings, URLs and processes of this installation. The apps never import it."""
