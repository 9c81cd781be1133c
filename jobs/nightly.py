"""For `ray job submit --working-dir . -- python jobs/nightly.py --config run.yaml`: the same arguments as `mfmc nightly`."""

import sys

from mfmc_ray.cli import main

if __name__ == "__main__":
    sys.argv = ["mfmc", "nightly", *sys.argv[1:]]
    main()
