"""The tables: medians of rounds, figures as people read them, Markdown.

Of the rounds of one peer the one with the median figure is shown whole, so that all columns of a
line belong together.
"""

from collections import defaultdict

# What each group is, and how its figure reads.
GROUPS = {
    "append": "Durable append, 100 bytes of JSON",
    "large": "Larger appends, and batches",
    "read": "Catch-up reads, hot",
    "live": "Live delivery: p99 from sending to the last reader of each record",
    "create": "Creating streams",
    "sealing": "Appending while sealing and publishing",
    "memory": "Resident memory",
    "written": "Bytes written to the disk for each byte appended (always on the real disk)",
    "restart": "Restart with data, until it answers for its streams",
}

# Whether more of a figure is better.
MORE_IS_BETTER = {"requests", "records", "volume"}

# The generator is not what is measured if a server that does nothing is so much faster than weir.
CEILING_MIN = 1.3


def show(unit, value):
    """A figure as people read it, with three digits."""
    if value is None:
        return "–"
    if unit in ("requests", "records"):
        return f"{thousands(value)}/s"
    if unit == "volume":
        return f"{size(value)}/s"
    if unit == "size":
        return size(value)
    if unit == "delay":
        return delay(value)
    return f"{digits(value)} ×"


def digits(value):
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def thousands(value):
    for factor, letter in [(1e6, " M"), (1e3, " k")]:
        if value >= factor:
            return digits(value / factor) + letter
    return f"{value:.0f}"


def size(value):
    for factor, letter in [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")]:
        if value >= factor:
            return f"{digits(value / factor)} {letter}"
    return f"{value:.0f} B"


def delay(microseconds):
    if microseconds >= 1e6:
        return f"{digits(microseconds / 1e6)} s"
    if microseconds >= 1e3:
        return f"{digits(microseconds / 1e3)} ms"
    return f"{microseconds:.0f} µs"


def median(rows):
    """The round with the median figure, or None if all failed."""
    done = sorted((row for row in rows if "figure" in row), key=lambda row: row["figure"])
    return done[(len(done) - 1) // 2] if done else None


def why(rows):
    """Why there is no figure."""
    return next((row["failed"] for row in rows if "failed" in row), "")


def table(head, lines):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    out += ["| " + " | ".join(line) + " |" for line in lines]
    return out


def cell(text):
    """Text that stays inside its cell, and in the file."""
    text = " ".join(str(text).split()).replace("|", "\\|")
    return text if len(text) <= 160 else text[:157] + "…"


def compare(cells, titles):
    """One line a work, one column a peer, and the ratios that the targets are about."""
    keys = [key for key in titles if any(key in it["rows"] for it in cells.values())]
    with_rust = {"weir", "rust"} <= set(keys)
    with_ceiling = "weir" in keys and any(key in keys for key in ("ceiling", "apart"))
    with_seals = {"unsealed", "sealing"} <= set(keys)
    head = ["", *(titles[key] for key in keys)]
    head += ["sealing ÷ never"] if with_seals else []
    head += ["weir ÷ official Rust"] if with_rust else []
    head += ["best do-nothing ÷ weir"] if with_ceiling else []
    lines, doubtful = [], []
    for found in cells.values():
        rows = {key: median(found["rows"].get(key, [])) for key in keys}
        figures = {key: row["figure"] for key, row in rows.items() if row}
        line = [found["name"]]
        for key in keys:
            failed = "failed" if found["rows"].get(key) else "–"
            line.append(show(found["unit"], figures[key]) if key in figures else failed)
        if with_seals:
            line.append(ratio(figures.get("sealing"), figures.get("unsealed")))
        if with_rust:
            line.append(ratio(figures.get("weir"), figures.get("rust")))
        if with_ceiling:
            ceiling = max((figures.get(key, 0) for key in ("ceiling", "apart")), default=0)
            line.append(ratio(ceiling or None, figures.get("weir")))
            if ceiling and "weir" in figures and ceiling < CEILING_MIN * figures["weir"]:
                doubtful.append(found["name"])
        lines.append(line)
    out = table(head, lines)
    if doubtful:
        out += ["", "The generator or HTTP itself may be the bottleneck (do-nothing is less than "
                f"{CEILING_MIN} × weir) in: {'; '.join(doubtful)}."]
    return out


def ratio(over, under):
    return f"{over / under:.2f}" if over and under else "–"


def beside(cells, titles):
    """One line a work and peer: what stands beside the figure."""
    head = ["", "server", "median (min – max)", "p50", "p99", "CPU s, server / generator",
            "peak memory, server / generator", "syncs while measured", "notes"]
    lines = []
    for found in cells.values():
        for key in titles:
            rows = found["rows"].get(key)
            if not rows:
                continue
            row = median(rows)
            if row is None:
                lines.append([found["name"], titles[key], "failed", *["–"] * 5, cell(why(rows))])
                continue
            figures = [it["figure"] for it in rows if "figure" in it]
            spread = show(found["unit"], row["figure"])
            if len(figures) > 1:
                spread += " ({} – {})".format(
                    *(show(found["unit"], it) for it in (min(figures), max(figures)))
                )
            lines.append([
                found["name"],
                titles[key],
                spread,
                show("delay", row.get("p50")),
                show("delay", row.get("p99")),
                pair(row, "server_cpu", "generator_cpu", lambda it: f"{it:.1f}"),
                pair(row, "server_peak", "generator_peak", size),
                syncs(row),
                cell("; ".join(notes(row, rows))),
            ])
    return table(head, lines)


def pair(row, first, second, form):
    texts = [form(row[name]) if row.get(name) is not None else "–" for name in (first, second)]
    return " / ".join(texts)


def syncs(row):
    if row.get("syncs") is None:
        return "–"
    mean = f", {row['sleep_us']:.0f} µs each" if row.get("sleep_us") else ""
    return f"{row['syncs']:,}{mean}"


def notes(row, rows):
    said = list(row.get("notes", []))
    if row.get("cpu_each") is not None:
        said.insert(0, f"{row['records']:,} records, {row['delivered']:,} deliveries, "
                    f"{row['cpu_each']} µs CPU each")
    if row.get("anonymous") is not None:
        said.insert(0, f"{size(row['anonymous'])} of it without mapped files")
    if row.get("cpu_share") is not None:
        said.insert(0, f"{row['cpu_share']:.1%} of a core")
    failed = [it for it in rows if "failed" in it]
    if failed:
        said.append(f"{len(failed)} of {len(rows)} rounds failed: {why(failed)}")
    return said


def render(results, titles):
    """The whole page."""
    out = [
        "# Beside other servers",
        "",
        "Written by `conformance/peers/run`; what is compared, how, and what the columns mean is in",
        "[conformance/peers](../../conformance/peers/README.md). Ratios count, not figures: each row",
        "is one run of all its servers in alternation on the same machine.",
    ]
    for disk in ("fixed", "real"):
        found = results.get(disk)
        if not found:
            continue
        out += ["", f"## {HEADS[disk]}", ""]
        out += about(found)
        groups = defaultdict(dict)
        for key, it in found["works"].items():
            groups[key.split("/", 1)[0]][key] = it
        for group, words in GROUPS.items():
            cells = groups.get(group)
            if not cells:
                continue
            unit = next(iter(cells.values()))["unit"]
            better = "more" if unit in MORE_IS_BETTER else "less"
            out += ["", f"### {words}", "", f"{better.capitalize()} is better.", ""]
            out += compare(cells, titles)
            out += ["", "<details><summary>What stands beside</summary>", ""]
            out += [*beside(cells, titles), "", "</details>"]
    out += ["", "## Commands", "", "What is done to each server; `--url`, `--server-pid`, `--seconds` "
            "and `--warm-up` come on top.", "", "```"]
    commands = dict.fromkeys(
        it["command"]
        for found in results.values() for it in found["works"].values() if it["command"]
    )
    return "\n".join([*out, *commands, "```", ""])


HEADS = {
    "fixed": "Every sync costs the same, data on a RAM disk",
    "real": "On the real disk",
}


def about(found):
    """The machine and the run. Parts may have been measured at different times."""
    taken = sorted({it["taken"] for it in found["works"].values()})
    commits = sorted({it["commit"] for it in found["works"].values()})
    facts = {"taken": ", ".join(taken), "weir at": ", ".join(commits), **found["about"]}
    return table(["", ""], [[name, cell(value)] for name, value in facts.items()])
