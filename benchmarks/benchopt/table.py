"""A table of a run of benchopt: ``python table.py FILE.parquet``; needs pandas, as benchopt does.

For each problem and solver the seconds to a relative suboptimality of 1e-6 and of 1e-10, as far as benchopt looked,
and the seconds and suboptimality at the end. The minimum is the lowest value that any solver found. Of several
repetitions, the medians.
"""

import sys

import pandas

TARGETS = (1e-6, 1e-10)


def main(path):
    """Print the table."""
    runs = pandas.read_parquet(path)
    print("| rows x features | lmbd | solver | s to 1e-06 | s to 1e-10 | s at the end | suboptimality at the end |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    problem = ["p_dataset_n_samples", "p_dataset_n_features", "p_obj_lmbd"]
    for (rows, features, lmbd), of_problem in runs.groupby(problem):
        minimum = of_problem["objective_value"].min()
        for name, curve in of_problem.groupby("solver_name"):
            curve = curve.groupby("stop_val")[["time", "objective_value"]].median()
            above = (curve["objective_value"] - minimum) / minimum
            firsts = [curve["time"][above <= target] for target in TARGETS]
            cells = ["{:.3g}".format(first.iloc[0]) if len(first) else "not reached" for first in firsts]
            cells += ["{:.3g}".format(curve["time"].iloc[-1]), "{:.0e}".format(above.iloc[-1])]
            size = "{:,} x {}".format(int(rows), int(features))
            print("| {} | {:g} | {} | {} |".format(size, lmbd, name, " | ".join(cells)))


if __name__ == "__main__":
    main(sys.argv[1])
