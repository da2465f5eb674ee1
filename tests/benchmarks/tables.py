"""The tables of a results page, from what `tests.benchmarks.pipelines` measured. Goals were set beforehand."""

from collections.abc import Callable, Iterable, Sequence

from tests.benchmarks.extent import MODELS, PRECISIONS, Table

STEP_GOALS = {"float32": 0.85, "bfloat16": 0.60}
AUROC_GOAL = 10
IMAGE_GOALS = {"float32": 1.5, "bfloat16": 5.0}
HEAD = """# The pipelines against each other and the machine

    BENCH_TEST_DATA=DATA make benchmark-pipelines

What is compared took turns, each pipeline in a process of its own. Times are medians; a ratio is the median over rounds
of that round's ratio, with its 95 % interval. Nothing here was measured on a GPU."""

EXPOSED_GOAL = 0.01
AGREEMENT_GOAL = 1e-5


def page(results: Table) -> str:
    """Return a results page: a section of Markdown for every part measured."""
    sections = [_section(part, results[part]) for part in SECTIONS if part in results]
    return "\n\n".join([HEAD, *sections]) + "\n"


def _section(part: str, measured: Table) -> str:
    title, body = SECTIONS[part]
    by = measured["machine"]
    where = f"{by['cpu']}, {by['threads']} threads, torch {by['torch']}, {by['version']}; took {measured['took_s']} s."
    said = f"Left out: {measured['left_out']}." if "left_out" in measured else body(measured)
    return f"## {title}\n\n{where}\n\n{said}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    """Return a table whose first columns are *words*, the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _ratio(ratio: Table) -> str:
    """Write a ratio with its interval."""
    if ratio["low"] is None:
        return f"{ratio['value']:.2f} ({ratio['samples']} rounds, too few for an interval)"
    interval = f"{ratio['low']:.2f} to {ratio['high']:.2f}"
    return f"{ratio['value']:.2f} ({interval}; {ratio['samples']} rounds)"


def _of_models_and_precisions() -> Iterable[tuple[str, str]]:
    return ((name, precision) for precision in PRECISIONS for name in MODELS)


def _step(found: Table) -> str:
    rows = [
        (
            name,
            precision,
            f"{cell['step_s']:.2f}",
            f"{cell['necessary_flops'] / 1e9:.0f}",
            f"{cell['product_flops_per_s'] / 1e9:.0f}",
            _ratio(cell["share_of_product_rate"]),
            f"{STEP_GOALS[precision]:.2f}",
            _ratio(cell["own_products_share_of_product_rate"]),
            _ratio(cell["own_products_of_step"]),
        )
        for name, precision in _of_models_and_precisions()
        for cell in [found[f"{name} {precision}"]]
    ]
    head = (
        *("model", "precision", "step, s", "necessary, GFLOP", "product, GFLOP/s", "share of its rate", "goal"),
        *("own products alone, share of its rate", "their time, of the step's"),
    )
    sizes = " x ".join(str(size) for size in found["product"])
    said = (
        f"{found['batch']} windows a step; the product is {sizes}. Own products are the step's, of their own shapes, "
        "with nothing between them; those inside a fused attention are not among them."
    )
    return f"{said}\n\n{_table(head, rows, 2)}"


def _image(found: Table) -> str:
    rows = [
        (
            name,
            precision,
            f"{cell['thesis_image_s']:.2f}",
            f"{cell['image_s']:.2f}",
            _ratio(cell["times_as_fast"]),
            f"{IMAGE_GOALS[precision]:.1f}",
        )
        for name, precision in _of_models_and_precisions()
        for cell in [found[f"{name} {precision}"]]
    ]
    head = ("model", "precision of `fast`", "`thesis`, s", "`fast`, s", "times as fast", "goal")
    said = f"One image of {found['side']} pixels; `thesis` in float32, `fast` in batches of {found['batch']} windows."
    return f"{said}\n\n{_table(head, rows, 2)}"


def _exposed(found: Table) -> str:
    rows = [
        (
            cell,
            str(each["images"]),
            f"{each['epoch_s_projected']:.0f}",
            f"{each['once_s']:.2f}",
            f"{100 * each['share_of_steps']:.3f}",
            f"{100 * each['share']:.3f}",
        )
        for cell, each in found.items()
        if isinstance(each, dict) and "share" in each
    ]
    head = ("cell", "images", "epoch, s, projected", "decoding and drawing, s", "of steps, %", "of the epoch, %")
    said = f"{found['steps']} steps of {found['batch']} windows stand for an epoch's; goal {100 * EXPOSED_GOAL:.0f} %."
    return f"{said}\n\n{_table(head, rows, 1)}"


def _pipelines(found: Table) -> str:
    ratios = [(name, _ratio(found[name]["times_as_fast"])) for name in MODELS]
    columns = [(name, pipeline) for name in MODELS for pipeline in ("thesis", "fast")]
    stages_s = {column: found[column[0]]["stages_s"][column[1]] for column in columns}
    last = ("wall", "loading busy")
    names = sorted({stage for each in stages_s.values() for stage in each} - set(last))
    rows = [
        (stage.removesuffix(" none"), *(_milliseconds(stages_s[column].get(stage)) for column in columns))
        for stage in (*names, *last)
    ]
    head = ("exposed, ms a step", *(f"{name}, `{pipeline}`" for name, pipeline in columns))
    said = f"Steps of {found['batch']} windows on {found['category']}, {found['steps_of_a_turn']} a turn, float32."
    times = _table(("model", "`fast`, times as fast as `thesis`"), ratios, 1)
    return f"{said}\n\n{times}\n\n{_table(head, rows, 1)}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.1f}"


def _agreement(found: Table) -> str:
    what = {
        "losses_differ_by_at_most": "losses, relative",
        "reconstructions_differ_by_at_most": "reconstruction by the same weights, of 1",
        "trained_apart_differ_by_at_most": "by the weights of each, of 1",
        "differences_differ_by_at_most": "difference, absolute",
        "largest_difference": "its largest value",
        "first_loss": "first loss",
        "last_loss": "last loss",
    }
    rows = [(name, *(f"{found[name][key]:.3g}" for key in what)) for name in MODELS]
    said = f"{found['steps']} steps of {found['batch']} windows at full size, float32; then an image is painted. "
    goal = f"Largest deviations; goal {AGREEMENT_GOAL:g}."
    return f"{said}{goal}\n\n{_table(('model', *what.values()), rows, 1)}"


def _memory(found: Table) -> str:
    keys = ("model_bytes", "step_bytes", "paint_bytes")
    rows = [
        (cell, *(f"{each[key] / 2**20:,.0f}" if key in each else "not told" for key in keys))
        for cell, each in found.items()
        if isinstance(each, dict) and cell != "machine"
    ]
    head = ("MiB", "model and Adam", "peak of a step", "peak of painting")
    said = f"{found['batch']} windows, {found['side']} pixels; what the process had before is not counted."
    if "children_bytes" in found:
        said += (
            f" The processes that load for `thesis` have {_mebibytes(found['children_bytes'])} MiB in use beside it."
        )
    return f"{said}\n\n{_table(head, rows, 1)}"


def _growth(found: Table) -> str:
    rows = [
        (
            what,
            pipeline,
            ", ".join(str(size) for size in each["sizes"]),
            ", ".join(f"{1e3 * seconds:.0f}" for seconds in each["time_s"]),
            f"{each['time_slope']:.2f} ({each['time_slopes'][0]:.2f} to {each['time_slopes'][1]:.2f})",
            ", ".join(_mebibytes(peak) for peak in each["peak_bytes"]),
            "" if each["peak_slope"] is None else f"{each['peak_slope']:.2f}",
            ", ".join(_mebibytes(size) for size in each.get("children_bytes", [])),
        )
        for what, by_pipeline in found.items()
        if " over " in what
        for pipeline, each in by_pipeline.items()
    ]
    head = ("what", "pipeline", "sizes", "ms", "slope of time (single rounds)", "peak added, MiB", "slope of peak")
    head = (*head, "those that load, MiB")
    said = f"{found['blocks']} blocks; {found['batch']} windows and {found['side']} pixels unless those are what grows."
    return f"{said}\n\n{_table(head, rows, 2)}"


def _scores(found: Table) -> str:
    rows = [
        (
            kind,
            *(f"{each['time_s'][name]:.3f}" for name in ("AUROC", "AUROC, scikit-learn", "all four")),
            _ratio(each["auroc_times_as_fast"]),
            _ratio(each["ap_times_as_fast"]),
            *(_mebibytes(each["peak_bytes"][name]) for name in ("AUROC", "AUROC, scikit-learn", "all four")),
        )
        for kind, each in found.items()
        if isinstance(each, dict) and "time_s" in each
    ]
    head = (
        *("maps", "AUROC, s", "scikit-learn's, s", "all four scores, s", "AUROC, times as fast", "AP, times as fast"),
        *("AUROC, MiB", "scikit-learn's, MiB", "all four, MiB"),
    )
    said = f"{found['pixels']:,} pixels; goal {AUROC_GOAL} times as fast, with no more memory beyond maps and masks."
    return f"{said}\n\n{_table(head, rows, 1)}"


def _mebibytes(size: int | None) -> str:
    return "not told" if size is None else f"{size / 2**20:,.0f}"


SECTIONS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "step": ("A training step, as a share of the machine's matrix rate", _step),
    "image": ("Reconstruction of one image", _image),
    "exposed": ("Loading, transfer and patching in a `fast` epoch on real images", _exposed),
    "pipelines": ("Both pipelines' steps side by side", _pipelines),
    "agreement": ("The same numbers", _agreement),
    "memory": ("Peak memory", _memory),
    "growth": ("How it grows", _growth),
    "scores": ("Exact scores against scikit-learn's", _scores),
}
