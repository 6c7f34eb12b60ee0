"""`python -m tulu`, for launchers that start a module: `torchrun --nproc-per-node 8 -m tulu sft RECIPE`."""

from tulu.cli import main

if __name__ == "__main__":
    main()
