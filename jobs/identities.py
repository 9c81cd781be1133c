"""For `ray job submit --working-dir . -- python jobs/identities.py --config run.yaml`: the same arguments as `mfmc identities`."""

import sys

from mfmc_ray.cli import main

if __name__ == "__main__":
    sys.argv = ["mfmc", "identities", *sys.argv[1:]]
    main()
