"""ViRReq (arXiv 2207.14227): visual recognition by request."""
