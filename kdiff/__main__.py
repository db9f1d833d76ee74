"""`python -m kdiff`, and so `torchrun -m -- kdiff`."""

from kdiff.cli import main

if __name__ == "__main__":
    main()
