"""Ours with `--grace-images`: trials begin with a third of the images. The same seed, the same first configurations."""

import ours

if __name__ == "__main__":
    ours.main("--grace-images", "0.33")
