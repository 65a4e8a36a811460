"""``reagent ablate``: the same training under different rewards, compared by what is stated beforehand."""
