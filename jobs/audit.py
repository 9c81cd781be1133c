"""For `ray job submit --working-dir . -- python jobs/audit.py --config run.yaml`: the same arguments as `mfmc audit`."""

import sys

from mfmc_ray.cli import main

if __name__ == "__main__":
    sys.argv = ["mfmc", "audit", *sys.argv[1:]]
    main()
