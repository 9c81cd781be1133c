"""For `ray job submit --working-dir . -- python jobs/scan.py --config run.yaml`: the same arguments as `mfmc scan`."""

import sys

from mfmc_ray.cli import main

if __name__ == "__main__":
    sys.argv = ["mfmc", "scan", *sys.argv[1:]]
    main()
