# SPDX-License-Identifier: Apache-2.0
"""The results of run.py as a Markdown table of ratios and a plot of step time against slots."""

from pathlib import Path

# The arm of ours that does the same: PEER beside PEER, SGD beside SGD.
_TWIN = {"torch-sparse-sgd": "memlayers-sgd", "lucidrains-peer": "memlayers-peer"}


def table(results: list[dict]) -> str:
    """A row a size and arm: times in ms, and how often our step fits into theirs."""
    steps = {_key(r, r["arm"]): r["step_ms"] for r in results if "step_ms" in r}
    lines = [
        "| rows | slots | arm | step, ms | forward | backward | update | ours is faster by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in results:
        head = f"| {r['dtype']} | {r['n_keys']}² | {r['arm']} |"
        if "skipped" in r:
            lines.append(f"{head} not run: {r['skipped']} | | | | |")
            continue
        update = r["update_ms"] + r.get("dense_update_ms", 0)  # ours are two optimizers
        ours = steps.get(_key(r, _TWIN.get(r["arm"], "memlayers")))
        is_ours = r["arm"].startswith("memlayers")
        ratio = "" if is_ours or ours is None else f"{r['step_ms'] / ours:.1f}x"
        lines.append(
            f"{head} {r['step_ms']:.1f} | {r['forward_ms']:.1f} | {r['backward_ms']:.1f} | "
            f"{update:.1f} | {ratio} |"
        )
    return "\n".join(lines) + "\n"


def _key(result: dict, arm: str) -> tuple:
    return arm, result["dtype"], result["n_keys"]


def _points(results: list[dict], arm: str, dtype: str, figure: str) -> tuple[list, list]:
    """A figure of one arm against slots."""
    points = sorted(
        (r["n_keys"] ** 2, r[figure])
        for r in results
        if r["arm"] == arm and r["dtype"] == dtype and figure in r
    )
    return [p[0] for p in points], [p[1] for p in points]


def plot(results: list[dict], path: Path) -> None:
    """Both axes logarithmic; a panel for each type of rows. The format is that of the name."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "memlayers"  # the same results make the same file
    import matplotlib.pyplot as plt

    dtypes = list(dict.fromkeys(r["dtype"] for r in results))
    figure, panels = plt.subplots(
        1, len(dtypes), figsize=(5.5 * len(dtypes), 4.2), sharey=True, squeeze=False
    )
    for panel, dtype in zip(panels[0], dtypes, strict=True):
        for arm in dict.fromkeys(r["arm"] for r in results):
            is_ours = arm.startswith("memlayers")
            width, style = (2.2, "-") if is_ours else (1.2, "--")
            points = _points(results, arm, dtype, "step_ms")
            if points[0]:
                panel.plot(*points, marker="o", linewidth=width, linestyle=style, label=arm)
        limit = _points(results, "memlayers", dtype, "limit_ms")
        if limit[0]:
            panel.plot(*limit, color="black", linewidth=1, linestyle=":", label="memlayers' limit")
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_title(f"{dtype} rows")
        panel.set_xlabel("slots")
        panel.grid(True, which="both", alpha=0.25)
    panels[0][0].set_ylabel("training step of one layer, ms")
    panels[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, metadata=metadata)
