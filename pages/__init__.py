"""The web page: one file per tab, each with build(ctx) and wire(ctx); it computes nothing itself."""
