"""One night from its data to its verdict, in steps that are kept on the disk; `flows.distill_flow` runs them."""
