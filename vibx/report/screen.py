"""What the commands show of records: a run's summary, tables of runs and of attacks."""

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vibx.evaluation.measure import measures
from vibx.report.published import has_the_papers_network, published_error
from vibx.store import Record, held_out_name


class Rows:
    """A table; on a screen that is too narrow for its words, a paragraph for each row.

    Cut columns would not tell one run from another.
    """

    def __init__(self, title: str | None = None):
        self.table = Table(title=title)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first, *others = self.table.columns
        first.no_wrap = True
        wide = options.update(max_width=10_000)  # a measurement is no wider than the screen
        if Measurement.get(console, wide, self.table).minimum <= options.max_width:
            yield self.table
            return
        if self.table.title:
            yield Text(str(self.table.title))
        cells = [list(column.cells) for column in others]
        for row, name in enumerate(first.cells):
            yield Text(str(name), overflow="fold")
            values = [f"{c.header} {cells[i][row]}" for i, c in enumerate(others) if cells[i][row]]
            yield Padding(Text.from_markup("; ".join(values), overflow="fold"), (0, 0, 0, 2))


def percent(value: float | None) -> str:
    """A fraction as a percentage; a dash where there is none."""
    return "-" if value is None else f"{value:.2%}"


def four_digits(value: float | None) -> str:
    """A number to four digits; a dash where there is none, as a deterministic model's rate."""
    return "-" if value is None else f"{value:.4g}"


def run_summary(record: Record) -> Table:
    """A finished run's measures on its two sets of images, with the paper's error."""
    name = held_out_name(record)
    config = record["config"]
    compared = name == "test" and has_the_papers_network(config)
    published = published_error(config) if compared else None
    table = Table(title=record["run_id"], title_justify="left")
    headers = ["train", name, *([f"paper, {published[1]}"] if published else [])]
    table.add_column("")
    for header in headers:
        table.add_column(header, justify="right")
    for measure in measures():
        values = [measure.shown(record[images].get(measure.name)) for images in ("train", name)]
        row = [measure.label.format(**record[name]), *values]
        if published and measure.name == "error_mc":
            row.append(measure.shown(published[0]))
        table.add_row(*row)
    return table


def run_table(records: list[Record], problems: dict[str, str] | None = None) -> Rows:
    """A row per finished run; runs with a problem follow, with what it was."""
    shown = [measure for measure in measures() if measure.column]
    rows = Rows()
    table = rows.table
    for header in ("run", "images"):
        table.add_column(header)
    for measure in shown:
        table.add_column(measure.column, justify="right")
    for record in records:
        name = held_out_name(record)
        values = [measure.shown(record[name].get(measure.name)) for measure in shown]
        table.add_row(record["run_id"], name, *values)
    for run_id, problem in (problems or {}).items():
        table.add_row(run_id, escape(problem))
    return rows


def attack_table(results: list[Record]) -> Rows:
    """A row per attacked run: its accuracy before, as seen, and under independent noise."""
    rows = Rows()
    table = rows.table
    for header in ("run", "attack", "images", "before", "seen", "re-evaluated", "median L2"):
        table.add_column(header, justify="left" if header in ("run", "attack") else "right")
    for result in results:
        attack = result["attack"]
        table.add_row(
            result["run_id"],
            f"{attack['attack']['name']}, {attack['mode']}",
            str(result["n"]),
            percent(result["accuracy_before"]),
            percent(result["accuracy_seen"]),
            percent(result["accuracy_recheck"]),
            four_digits(result["l2_median"]),
        )
    return rows


def audit_table(result: Record) -> Rows:
    """A row per check of an audited run."""
    rows = Rows(title=result["run_id"])
    table = rows.table
    for header in ("check", "expected", "measured", "passed", "meaning"):
        table.add_column(header)
    for check in result["checks"]:
        passed = "yes" if check["passed"] else "[bold red]no"
        table.add_row(check["name"], check["expected"], check["measured"], passed, check["meaning"])
    return rows
