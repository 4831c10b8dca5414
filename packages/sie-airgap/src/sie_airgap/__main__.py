"""`python -m sie_airgap`: the same as `sie-airgap`."""

from sie_airgap.cli import main

if __name__ == "__main__":
    main()
