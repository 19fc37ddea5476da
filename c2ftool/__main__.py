"""`python -m c2ftool` (and so `torchrun -m c2ftool`) is `c2f`."""

from c2ftool.cli.main import main

if __name__ == "__main__":
    main()
