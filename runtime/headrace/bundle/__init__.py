"""What a bundle is: typed manifest, digests, open, verify, replay. See docs/reference/bundle.md."""
