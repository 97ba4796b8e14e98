"""Search for what equation 17 allows at K = 2, which `vibx figures` draws beside Figure 2.

`python scripts/class_only.py 0.1 0.99` adds betas, about 10 seconds each, to the recorded ones.
"""

import sys

from vibx.report import class_only


def main() -> None:
    """Search from every start at each beta."""
    for beta in map(float, sys.argv[1:]):
        found = class_only.read() if class_only.FILE.exists() else []
        kept = [optimum for optimum in found if optimum.beta != beta]
        for name, start in class_only.starts(beta).items():
            optimum = class_only.minimise(beta, start)
            errors = class_only.error_1(optimum.model), class_only.error_mc(optimum.model)
            print(f"{beta:g} {name}: {optimum.objective:.6f} {errors}", flush=True)
            kept.append(class_only.Recorded(*optimum, name, *errors))
        class_only.write(sorted(kept, key=lambda optimum: (optimum.beta, optimum.objective)))


if __name__ == "__main__":
    main()
