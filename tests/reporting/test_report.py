"""The report says what the numbers say, stands alone, and shows what is missing."""

import base64
import io
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.reporting import arms, figures, report, series, tables, writers

SEEDS = 5
PHASES = (("pretrain", 20_000, 0), ("explore", 40_000, 40_000), ("retrain", 20_000, 0))


def _scores(generator, mean):
    success = np.clip(generator.normal(mean, 0.06, SEEDS), 0, 1).round(2).tolist()
    return {
        "success": success,
        "return": [-200 * (1 - s) for s in success],
        "normalised": None,
        "length": None,
    }


def example_summary(name="ooo-maze", seed=0):
    generator = np.random.default_rng(seed)
    phases = [
        {
            "name": phase,
            "agent": agent,
            "num_updates": updates,
            "num_env_steps": steps,
            "online_rows": rows,
            "scores": _scores(generator, mean),
            "wall_seconds": 100.0,
            "compile_seconds": 11.0,
        }
        for (phase, updates, steps), agent, mean, rows in zip(
            PHASES, ("iql + rnd", "iql + rnd", "iql"), (0.1, 0.4, 0.9), (0, 40_000, 40_000), strict=True
        )
    ]
    return {
        "name": name,
        "kind": "ooo",
        "environment": "sparse-maze",
        "dataset": {"name": "maze-play", "sha256": "ab" * 32, "rows": 100_000},
        "seeds": list(range(SEEDS)),
        "phases": phases,
        "arms": [
            {"name": "OOO", "description": "retrained", "scores": phases[-1]["scores"]},
            {"name": "fine-tuned", "description": "no retraining", "scores": _scores(generator, 0.5)},
        ],
        "env_steps": 40_000,
        "wall_seconds": 300.0,
        "compile_seconds": 33.0,
        "versions": {"jax": "0.10.2", "python": "3.12.3"},
        "config_text": "[agent]\nname = 'iql' # <b>\n",
        "notes": ["A note & more."],
    }


def example_rows(summary, seed=0, restart=True):
    generator = np.random.default_rng(seed)
    rows, updates_before, steps_before, level = [], 0, 0, 0.0
    for phase, (name, num_updates, num_steps) in zip(summary["phases"], PHASES, strict=True):
        target = float(np.mean(phase["scores"]["success"]))
        for k in range(21):
            for s in range(SEEDS):
                updates = k * num_updates // 20 + (0 if restart else updates_before)
                steps = k * num_steps // 20 + steps_before
                base = {"phase": name, "seed": s, "updates": updates, "env_steps": steps}
                dip = 0.1 * (name == "explore") * np.exp(-((k - 1.5) ** 2))
                mean = level + (target - level) * k / 20 - dip
                success = float(np.clip(mean + generator.normal(0, 0.05), 0, 1))
                rows.append({"kind": "eval", **base, "success": success, "return": -200 * (1 - success)})
                q = -100 + 60 * k / 20 + generator.normal()
                loss = float(np.exp(-k / 6) + 0.02 * generator.random())
                rows.append({"kind": "train", **base, "critic/q": q, "critic/loss": loss})
        updates_before, steps_before, level = updates_before + num_updates, steps_before + num_steps, target
    rows[1]["critic/loss"] = float("nan")
    return rows


def example_states():
    generator = np.random.default_rng(0)
    walls = [[[0, 0], [8, 0]], [[8, 0], [8, 8]], [[8, 8], [0, 8]], [[0, 8], [0, 0]], [[0, 4], [5, 4]]]
    steps = np.linspace(0, 1, 4000)[:, None]
    return {
        "offline": generator.uniform([0.2, 0.2], [7.8, 3.8], (4000, 2)),
        "online": np.clip([1, 1] + steps * [5, 5.5] + generator.normal(0, 0.9, (4000, 2)), 0.2, 7.8),
        "walls": np.array(walls, float),
        "goal": np.array([6.5, 7.0]),
        "goal_radius": np.array(0.5),
        "xlabel": np.array("x (m)"),
        "ylabel": np.array("y (m)"),
    }


@pytest.fixture
def run_dir(tmp_path):
    directory = tmp_path / "run"
    summary = example_summary()
    directory.mkdir()
    writers.write_json(directory / "summary.json", summary)
    with writers.MetricsWriter(directory, tensorboard=False) as writer:
        writer.write(example_rows(summary))
    np.savez(directory / "states.npz", **example_states())
    return directory


def test_report_of_one_run_stands_alone(run_dir, tmp_path):
    path = report.report([run_dir], tmp_path / "report.html")
    page = path.read_text()
    assert not re.search(r'(src|href)=(?!"data:)|<script|url\(|@import', page)
    # A panel for each of three trainings, one over steps, two maps, and two metrics that each training logged.
    drawings = [base64.b64decode(text) for text in re.findall(r'data:image/svg\+xml;base64,([^"]+)"', page)]
    assert len(drawings) == 3 + 1 + 2 + 3 * 2
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).tag.endswith("svg") and b"http://" not in drawing.partition(b"<g")[2]
    assert len(re.findall(r'<img alt="[^"]{20,}"', page)) == len(drawings)
    body = page.partition("</style>")[2].strip()
    assert body.startswith(f"<h1>{tables.result(report.load(run_dir)[0])}</h1>")
    for text in ("ab" * 32, "0.10.2", "&lt;b&gt;", "A note &amp; more.", "fine-tuned", "regret"):
        assert text in page
    assert path.read_bytes() == report.report([run_dir], tmp_path / "again.html").read_bytes()


def test_report_of_several_runs_warns_of_unlike_runs(run_dir, tmp_path):
    other = example_summary("iql", 1)
    other["environment"] = "other-maze"
    (tmp_path / "other").mkdir()
    writers.write_json(tmp_path / "other" / "summary.json", other)
    page = report.report([run_dir, tmp_path / "other"], tmp_path / "report.html").read_text()
    assert "These runs have different environments." in page
    first = "; ".join(tables.result(s, with_others=False) for s in (example_summary(), other))
    assert "<h1>" + re.sub("OOO", "ooo-maze: OOO", first, count=1).replace("; OOO", "; iql: OOO") + "</h1>" in page
    assert "different data sets" not in page
    assert page.count("<details><summary>ooo-maze") == page.count("<details><summary>iql</summary>") == 1
    assert "ooo-maze: fine-tuned" in page


def test_a_run_that_never_succeeded_is_shown_beside_one_that_did(run_dir, tmp_path):
    failed = example_summary("failed", 1)
    for entry in (*failed["phases"], *failed["arms"]):
        entry["scores"]["success"] = [0.0] * SEEDS
    (tmp_path / "failed").mkdir()
    writers.write_json(tmp_path / "failed" / "summary.json", failed)
    page = report.report([run_dir, tmp_path / "failed"], tmp_path / "report.html").read_text()
    assert page.count("<td>0.0 % [0.0, 52.2]†</td>") == 3 + 5  # its three rows above, five in its own section


def test_leading_score_is_normalised_then_success_then_return():
    def summary(**scores):
        return {"phases": [{"name": "pretrain", "scores": scores}]}

    full = summary(normalised=[50.0], success=[0.5], **{"return": [9.0]})
    success = summary(normalised=None, success=[0.5, None], **{"return": [9.0, 2.0]})
    never = summary(normalised=None, success=[0.0], **{"return": [9.0]})
    assert report.primary_metric([full]) == "normalised"
    assert report.primary_metric([full, success]) == "success"
    assert report.primary_metric([never]) == "return"


def test_cells_say_why_there_is_no_interval():
    assert tables.cell("success", [1, 1, 1, 1, 1]) == "100.0 % [47.8, 100.0]†"  # 0.025^(1/5) = 0.478
    assert tables.cell("return", [5.0, 5.0, 5.0]) == "5 (all seeds equal)"
    assert tables.cell("normalised", [50.0]) == "50.0 (1 seed, no interval)"
    assert tables.cell("return", [1.0, None, 3.0, float("nan")]) == "undefined (2 of 4 seeds missing, mean of the others 2)"
    assert tables.cell("length", None) == ""


def test_scores_too_large_to_tell_apart_are_drawn():
    table = tables.html_table(["phase", "return"], [["a", "b"]], [[1e30, 1e30]], "return", "scores")
    assert "1e+30" in table and "nan" not in table


def test_headline_and_tables_hold_the_same_numbers():
    from rich.console import Console

    summary = example_summary()
    summary["phases"][0]["scores"]["success"] = [0.0] * 5
    summary["phases"][2]["scores"]["success"] = [1.0] * 5
    summary["arms"] = []
    middle = tables.number("success", np.mean(summary["phases"][1]["scores"]["success"]))
    assert report.headline(summary) == (
        f"sparse-maze: OOO 100 %, pretrained 0, explorer {middle} %; success rate, mean over 5 seeds."
    )
    text = report.phase_text(summary)
    out = io.StringIO()
    Console(file=out, width=250).print(report.phase_table(summary))
    for cells in tables.score_table(summary)[1]:
        for cell in cells:
            assert cell in text and cell in out.getvalue()


@pytest.mark.parametrize("restart", [True, False])
def test_curves_join_phases_whether_or_not_counts_restart(restart):
    summary = example_summary()
    found = series.phase_curves(summary, example_rows(summary, restart=restart), "success", "updates")
    ends = {name: (x[0], x[-1]) for name, (x, _) in found.items()}
    assert ends == {"pretrain": (0, 20_000), "explore": (20_000, 60_000), "retrain": (60_000, 80_000)}
    steps = series.phase_curves(summary, example_rows(summary), "success", "env_steps")
    assert steps["explore"][0][-1] == steps["retrain"][0][0] == 40_000


def test_a_seed_without_a_value_is_not_averaged_away():
    summary = example_summary()
    rows = [row for row in example_rows(summary) if not (row["seed"] == 2 and row["updates"] == 1000)]
    x, values = series.phase_curves(summary, rows, "success", "updates")["pretrain"]
    assert np.isnan(values[2, list(x).index(1000)])
    assert np.isnan(values).sum() == 1


def test_a_summary_alone_is_enough(tmp_path):
    summary = {"name": "bare", "environment": "point", "seeds": [0], "phases": [{"name": "pretrain"}]}
    page = report.write_report(tmp_path / "bare.html", [summary]).read_text()
    assert "<h1>Not evaluated yet</h1>" in page and "<img" not in page
    assert report.headline(summary) == "point: not evaluated yet."
    assert "pretrain" in report.phase_text(summary)


def test_directory_without_a_summary_is_refused(tmp_path):
    with pytest.raises(UsageError, match="summary.json"):
        report.report([tmp_path], tmp_path / "report.html")
    with pytest.raises(UsageError, match="at least one"):
        report.report([], tmp_path / "report.html")
    writers.write_json(tmp_path / "summary.json", {"name": "x", "seeds": [], "phases": []})
    with pytest.raises(UsageError, match="environment"):
        report.load(tmp_path)


def test_drawing_is_lazy_and_leaves_matplotlib_as_it_was():
    code = """
import sys
import ooorl.reporting.report
assert "matplotlib" not in sys.modules and "rich" not in sys.modules
import matplotlib
before = matplotlib.rcParams.copy()  # does not resolve the backend, as reading it would
from ooorl.reporting import figures
from ooorl.reporting import maps
figures.svg(maps.state_maps({"online": [[0.0, 1.0], [2.0, 3.0]]})[0].figure)
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.rcParams.copy() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def phases_of(scores, **names):
    """A run of OOO with success rates by phase, and what is said of it."""
    phases = [{"name": name, "num_updates": 5, "scores": {"success": own}} for name, own in scores.items()]
    return {"name": "x", "environment": "maze", "kind": "ooo", "dataset": {}, "seeds": list(range(8)), "phases": phases, **names}


SPLIT, NEVER, ALWAYS = [1.0] * 6 + [0.0] * 2, [0.0] * 8, [1.0] * 8


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"pretrain": NEVER, "explore": NEVER, "retrain@0": NEVER, "retrain@90": SPLIT}, "OOO 75 %, every other arm 0"),
        ({"retrain@90": SPLIT, "pretrain": NEVER, "explore": [.09] * 8, "m": NEVER}, "OOO 75 %, explorer 9 %, every other arm 0"),
        ({"retrain@0": NEVER, "retrain@10": NEVER, "retrain@90": SPLIT}, "OOO 75 %, every other arm 0"),
        ({"pretrain": [0.975] * 8, "retrain@90": [0.925] * 8}, "OOO 92.5 %, pretrained 97.5 %"),
        ({"retrain@90": [1.0] * 7 + [None], "pretrain": NEVER}, "OOO undefined (1 of 8 seeds missing), pretrained 0"),
        ({"pretrain": SPLIT}, "pretrained 75 %"),
        ({"mine": SPLIT, "own": ALWAYS}, "own 100 %, mine 75 %"),
        ({"retrain@9": ALWAYS, **{f"o{k}": [k / 10] * 8 for k in range(1, 6)}}, "OOO 100 %, the best of 5 other arms, o5, 50 %"),
    ],
)  # fmt: skip
def test_the_result_in_words(scores, words):
    assert tables.result(phases_of(scores), "success") == words


def test_the_first_line_says_what_intervals_separate(tmp_path):
    summary = phases_of({"pretrain": NEVER, "explore": SPLIT, "retrain@90": ALWAYS})
    said = tables.separation(summary, "success")
    assert said.startswith("OOO is ahead of pretrained; not separated from explorer (95 %")
    page = report.write_report(tmp_path / "r.html", [summary]).read_text()
    assert f"<h1>{tables.result(summary)}</h1>" in page and said in page
    assert "100.0 points [26.1, 100.0]†" in page  # 2 * .025^(1/8) - 1
    assert tables.separation(phases_of({"pretrain": NEVER})) == ""
    alike = tables.separation(phases_of({"pretrain": SPLIT, "explore": SPLIT, "retrain@90": SPLIT}))
    assert alike.startswith("OOO is not separated from any other arm (")


def test_every_arm_of_the_schemes_is_explained():
    names = ("pretrain", "random", "explore", "retrain@0", "retrain@5", "retrain@90")
    names = (*names, "plain-pretrain", "plain-random", "plain-explore", "plain-retrain@90")
    found = arms.arms(phases_of(dict.fromkeys(names, NEVER)))
    assert all(arm.explanation.endswith(".") for arm in found.values())
    assert len({arm.label for arm in found.values()}) == len(names)
    for kind in ("offline", "finetune", "online"):
        assert all(arm.explanation for arm in arms.arms(phases_of({kind: NEVER}, kind=kind)).values())
    assert arms.arms(phases_of({"mine": NEVER}))["mine"] == ("mine", "mine", "")


def test_trainings_are_the_chains_of_phases():
    starts = (("a", None), ("b", "a"), ("c", None), ("d", "b"), ("e", "a"))
    phases = [{"name": n, "start": s, "num_updates": 10} for n, s in starts]
    summary = {"seeds": [0], "phases": phases}
    chains = series.trainings(summary)
    assert [[p["name"] for p in own] for own in chains] == [["a", "b", "d"], ["c"], ["e"]]
    for through in (False, True):  # counts that begin again with each phase, or run through the run
        rows = [
            {"kind": "eval", "phase": p["name"], "seed": 0, "updates": 10 + 10 * k * through, "success": k}
            for k, p in enumerate(phases)
        ]
        found = series.training_curves(summary, chains[0], rows, "success")
        assert {name: x.tolist() for name, (x, _) in found.items()} == {"a": [10], "b": [20], "d": [30]}


HOSTILE = ("$\\frac{", "$x$ and $\\mathdefault{\\frac$", "_hidden", "a\x00b\x1b[0m\nc", "</svg><script>", "\ud800 half")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are_and_break_nothing(name, tmp_path, recwarn):
    summary = example_summary(name or "x")
    rows = example_rows(summary)
    renamed = {phase["name"]: f"{phase['name']}{name}" for phase in summary["phases"]}
    for row in rows:
        row["phase"] = renamed[row["phase"]]
        if row["kind"] == "train":
            row[f"critic/{name}"] = 1.0
    for phase, start in zip(summary["phases"], (None, *renamed.values()), strict=False):
        phase.update(name=renamed[phase["name"]], start=start)
    summary.update(environment=name, arms=None)
    states = {**example_states(), "xlabel": name, f"online_{name}": np.zeros((3, 2))}
    path = report.write_report(tmp_path / "r.html", [summary, summary], [rows[:400], rows[:400]], [states, None])
    page = path.read_text()
    assert "<script" not in page and not list(recwarn)
    for text in re.findall(r'data:image/svg\+xml;base64,([^"]+)"', page):
        ElementTree.fromstring(base64.b64decode(text))


def test_a_drawing_holds_names_letter_by_letter():
    drawn, panel = figures.figure()
    figures.finish(panel, r"$\frac{1}{2}$ \$", "y")
    texts = ["".join(node.itertext()) for node in ElementTree.fromstring(figures.svg(drawn)).iter() if node.tag.endswith("text")]
    assert r"$\frac{1}{2}$ \$" in texts
