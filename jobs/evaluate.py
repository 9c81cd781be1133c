"""For `ray job submit --working-dir . -- python jobs/evaluate.py --config run.yaml`: the same arguments as `mfmc evaluate`."""

import sys

from mfmc_ray.cli import main

if __name__ == "__main__":
    sys.argv = ["mfmc", "evaluate", *sys.argv[1:]]
    main()
