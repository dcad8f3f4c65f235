"""The places alerts go to, one file each."""
