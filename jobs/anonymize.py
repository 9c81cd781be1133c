"""For `ray job submit --working-dir . -- python jobs/anonymize.py --config run.yaml`: the same arguments as `mfmc anonymize`."""

import sys

from mfmc_ray.cli import main

if __name__ == "__main__":
    sys.argv = ["mfmc", "anonymize", *sys.argv[1:]]
    main()
