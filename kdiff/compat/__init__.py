"""kdiff behind other packages' interfaces."""
