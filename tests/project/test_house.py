"""Requirements, set-up, and the promises of the texts about the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import results
import run_course
import setup_colab
import yaml
from check_file_sizes import too_large
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from run_course import write_page
from set_repository import address_of, rewrite

ROOT = Path(__file__).resolve().parents[2]


def lines_of(name):
    """Returns the requirements of a file, without options and comments."""
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and line[0] not in "#-"]


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements():
    lines = (line.split("#")[0].strip() for line in lines_of("requirements.txt"))
    return {re.split(r"[<>=!~]", line)[0]: line for line in lines}


def test_every_requirement_has_a_range_and_a_reason():
    for line in lines_of("requirements.txt"):
        assert re.match(r"[\w-]+>=[\d.]+ *# \S.{10,}", line), line
    text = (ROOT / "pyproject.toml").read_text()
    extra = text.split("\ndev = [\n")[1].split("\n]")[0].splitlines()
    assert len(extra) == len(project()["optional-dependencies"]["dev"])
    for line in extra:
        assert re.match(r' +"[\w\[\]-]+>=[\d.]+", *# \S.{10,}', line), line


def test_the_package_asks_for_what_requirements_say():
    ranges = requirements()
    for dependency in project()["dependencies"]:
        name = re.split(r"[<>=!~]", dependency)[0]
        assert ranges.get(name, dependency) == dependency
        assert name in ranges or name == "ipython"  # comes with jupyterlab


def test_constraints_pin_every_requirement():
    pins = dict(line.split("==") for line in lines_of("constraints.txt"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extra = project()["optional-dependencies"]["dev"]
    for wanted in map(Requirement, [*requirements().values(), *extra]):
        version = pins[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), f"{wanted}, pinned {version}"


def test_pip_and_binder_read_the_pinned_versions():
    """repo2docker runs `pip install -r requirements.txt` and names no constraints."""
    assert "-c constraints.txt" in (ROOT / "requirements.txt").read_text().splitlines()


def test_colab_never_touches_torch(monkeypatch):
    text = (ROOT / "requirements.txt").read_text()
    monkeypatch.setattr(setup_colab.importlib.metadata, "distributions", lambda: [])
    names = [re.split(r"[<>=]", line)[0] for line in setup_colab.missing(text)]
    assert "torchinfo" in names and "pooch" in names
    assert not [name for name in names if name.startswith("-")]
    assert not {"torch", "torchvision"} & set(names)


def test_colab_asks_for_nothing_that_is_there():
    assert setup_colab.missing((ROOT / "requirements.txt").read_text()) == []


def test_colab_survives_a_distribution_without_a_name(monkeypatch):
    class Nameless:
        metadata = {}  # as an interrupted installation leaves it

    monkeypatch.setattr(
        setup_colab.importlib.metadata, "distributions", lambda: [Nameless()]
    )
    assert setup_colab.missing("torchinfo>=1.8\n") == ["torchinfo>=1.8"]


def test_on_colab_other_processes_find_the_course_too(monkeypatch, tmp_path):
    """Lesson 14 starts commands in /content, where no set-up cell has run."""
    monkeypatch.setattr(setup_colab.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(setup_colab, "missing", lambda requirements: [])
    setup_colab.main()
    code = f"import site; site.addsitedir({str(tmp_path)!r}); import helper_functions"
    code += "; print(helper_functions.__file__)"
    words = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        code,
    ]  # no packages, no folder of its own
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    # Found, and then stopped at the first package, which this bare Python lacks.
    assert str(ROOT / "helper_functions.py") in said.stdout + said.stderr


def test_the_root_stays_small_enough_to_read():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    entries = {name.split("/")[0] for name in files.stdout.splitlines()}
    assert len(entries) <= 24, sorted(entries)
    assert {e for e in entries if e.endswith(".py")} == {"helper_functions.py"}
    assert len((ROOT / "helper_functions.py").read_text().splitlines()) < 300


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_help_names_the_commands():
    text = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    for target in "install course lab test test-slow types hooks export badges".split():
        assert re.search(rf"^{target} ", text, re.M), target


TEXTS = [*ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("*/README.md")]
TEXTS += sorted(set(ROOT.glob("docs/*.md")) - {ROOT / "docs" / "start.md", *TEXTS})


@pytest.mark.parametrize(
    "page", TEXTS, ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_texts_link_to_what_exists(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target


def test_the_readme_names_every_lesson():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for lesson in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{lesson.name}" in text, f"the README lacks {lesson.name}"


def test_a_contributor_finds_every_folder_and_command():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    folders = {name.split("/")[0] for name in files.stdout.splitlines() if "/" in name}
    for folder in folders:
        if not folder.startswith("."):
            assert f"| [`{folder}/`]({folder})" in text, folder
            assert (ROOT / folder / "README.md").exists() or folder == "notebooks"
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_tables_of_tools_and_tests_are_complete():
    tools = (ROOT / "tools" / "README.md").read_text()
    for path in (ROOT / "tools").glob("*.py"):
        assert f"`{path.name}`" in tools, path.name
    tests = (ROOT / "tests" / "README.md").read_text()
    for path in (ROOT / "tests").iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert f"`{path.name}/`" in tests, path.name


def test_the_citation_names_the_course_and_all_authors_of_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["message"]
    assert citation["version"] == project()["version"]
    assert citation["repository-code"] == project()["urls"]["Repository"]
    assert citation["authors"][0]["name"] in (ROOT / "LICENSE").read_text()
    (paper,) = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2010.11929"
    names = [author["family-names"] for author in paper["authors"]]
    assert len(names) == 12 and (names[0], names[-1]) == ("Dosovitskiy", "Houlsby")


def test_forms_and_workflows_parse():
    forms = [*(ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")]
    assert len(forms) == 3
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert form["name"] and form["description"], path.name
        ids = [field["id"] for field in form["body"]]
        assert len(ids) == len(set(ids)) and all(
            field["attributes"]["label"] for field in form["body"]
        )
    for name in ("test", "site", "badges"):
        path = ROOT / ".github" / "workflows" / f"{name}.yml"
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow[True], "on:"  # YAML 1.1 reads `on` as true
        for job in workflow["jobs"].values():
            assert job["runs-on"] and job["steps"]
            for lesson in re.findall(r"notebooks/\w+\.ipynb", str(job["steps"])):
                assert (ROOT / lesson).exists(), lesson
    container = ROOT / ".devcontainer" / "devcontainer.json"
    assert json.loads(container.read_text())["postCreateCommand"] == "make install"


def test_hooks_call_commands_that_exist():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (repo,) = yaml.safe_load(text)["repos"]
    assert repo["repo"] == "local"  # nothing is fetched
    bin = Path(sys.executable).parent
    for hook in repo["hooks"]:
        command, first, *_ = hook["entry"].split()
        assert hook["language"] == "system" and command.startswith(".venv/bin/")
        assert shutil.which(Path(command).name, path=str(bin)), command
        assert first in ("check", "format") or (ROOT / first).exists(), first


def test_large_files_are_refused(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"1234")
    large.write_bytes(b"12345")
    assert too_large([small, large, tmp_path / "deleted"], limit=4) == [large]


def test_settings_hold_for_tests_and_lessons(tmp_path):
    """Whatever a reader has set, `pytest` runs offline; a lesson under nbval, too."""
    assert os.environ["VIT_COURSE_OFFLINE"] == "1" and "MPLBACKEND" not in os.environ
    code = "import os\nassert os.environ['VIT_COURSE_OFFLINE'] == '1'\n"
    code += "assert 'VIT_COURSE_DATA' not in os.environ"
    cell = nbformat.v4.new_code_cell(code, execution_count=1)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    words = ["--nbval", "--nbval-current-env", "-c", ROOT / "pyproject.toml"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *words, tmp_path / "lesson.ipynb"],
        cwd=ROOT,
        env=os.environ | {"VIT_COURSE_OFFLINE": "0", "VIT_COURSE_DATA": "elsewhere"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def test_the_table_of_lessons_has_their_minutes_exercises_and_solutions():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for lesson in (ROOT / "notebooks").glob("*.ipynb"):
        first = nbformat.read(lesson, as_version=4).cells[0].source
        minutes = re.search(r"About (\d+) minutes", first).group(1)
        (row,) = re.findall(rf"^\| \[[^|]*\(notebooks/{lesson.name}\).*$", text, re.M)
        assert f"| {minutes} |" in row, lesson.name
        for folder in ("exercises", "solutions"):
            there = (ROOT / "notebooks" / folder / lesson.name).exists()
            assert (f"(notebooks/{folder}/{lesson.name})" in row) == there


def test_no_lesson_is_over_one_and_a_half_megabytes():
    for lesson in (ROOT / "notebooks").rglob("*.ipynb"):
        assert lesson.stat().st_size < 1.5e6, lesson.name


MEASURED = ROOT / "docs" / "measurements.md"


def test_measured_numbers_are_the_stored_ones():
    text = MEASURED.read_text(encoding="utf-8")
    stored = json.loads((ROOT / "benchmarks" / "transfer.json").read_text())
    for method in stored["methods"].values():
        low, high = method["interval"]
        row = f"| {method['lr']:g} | {method['mean']:.1f} % | {low:.1f} … {high:.1f} %"
        assert f"{row} |" in text, row
        for key, gain in method.items():
            if key.startswith("over_"):
                low, high = gain["interval"]
                assert f"{gain['mean']:+.1f} " in text and low > 0
                assert f"({low:+.1f} … {high:+.1f})" in text
    gain = stored["methods"]["fine_tuned"]["over_frozen"]
    assert f"it wins {gain['won']} of the {stored['test_images']} images" in text
    assert f"loses {gain['lost']} (McNemar's exact test, p = {gain['p']})" in text
    assert f"on {stored['train_images']} training photographs" in text
    assert f"on {stored['test_images']} others; {len(stored['seeds'])} seeds" in text
    stored = json.loads((ROOT / "benchmarks" / "ablation.json").read_text())
    recipe, *changes = stored["rows"]
    assert f"gets {recipe['mean']:.1f} % right" in text
    for row in changes:  # the table has what is decided, and nothing else
        low, high = row["interval"]
        change = f"{row['difference']:+.1f} ({low:+.1f} … {high:+.1f})"
        found = f"| {row['mean']:.1f} % | {change} |" in text
        assert found == (row["p_holm"] < 0.05), row["name"]

    def stands(name):  # with each of the other bases that have five runs
        against = dict(next(r for r in changes if name in r["name"])["p_holm_against"])
        del against["all runs"]
        return {p < 0.05 for p in against.values()}

    naive = [row["name"] for row in changes if "naive" in row["name"]]
    for name in (*naive, "a rate of 3e-3"):
        assert stands(name) == {True}
    for name in ("Adam instead of AdamW", "no clipping", "patches of 16 pixels"):
        assert stands(name) == {True, False} and f"| {name} * |" in text


def test_the_results_of_the_readme_are_the_measured_ones():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.encode()) < 12_000
    results = readme.split("## Three results")[1].split("## Import it")[0]
    quoted = re.findall(r"[\d.]+ %", results)
    measured = MEASURED.read_text(encoding="utf-8")
    assert len(quoted) == 6 and all(number in measured for number in quoted)


def test_the_stored_bench_and_inductive_bias_are_quoted():
    text = MEASURED.read_text(encoding="utf-8")
    stored = json.loads((ROOT / "benchmarks" / "speed.json").read_text())
    forward, training = (stored[f"vit_base_16 {m}"] for m in ("forward", "training"))
    for peer in ("ours", "torchvision", "timm", "vit-pytorch", "nn.TransformerEncoder"):
        rows = forward[peer], training[peer]
        for low, high in (row["spread"] for row in rows):
            assert low <= 1 <= high, "no difference is decided"
        times = " | ".join(f"{row['ratio']:.2f}" for row in rows)
        memory = " | ".join(f"{row['megabytes']:,.0f}" for row in rows)
        assert f"| {peer} | {times} | {memory} |" in text
    assert f"batches of {stored['batch']['vit_base_16']}, fp32" in text
    for rows in (forward, training):  # what the text says about bfloat16
        assert rows["ours, bfloat16"]["ratio"] > rows["ours"]["ratio"]
    stored = json.loads(
        (ROOT / "benchmarks" / "inductive_bias_rendered.json").read_text()
    )
    models = ("ViT", "CNN", "CNN of equal FLOPs", "CNN, shuffled")
    mean = {(row["model"], row["images"]): row["mean"] for row in stored["rows"]}
    for size in (30, 100, 300, 1000):
        values = " | ".join(f"{mean[model, size]:.1f} %" for model in models)
        assert f"| {size:,} | {values} |" in text
    assert f"{len(stored['seeds'])} seeds, {stored['test_images']} test" in text
    quoted = ("CNN", "ViT", 100), ("CNN, shuffled", "ViT", 100)
    found = []
    for row in stored["comparisons"]:
        low, high = row["interval"]
        said = f"{row['difference']:+.1f} points ({low:+.1f} … {high:+.1f})"
        if (row["first"], row["second"], row["images"]) in quoted:
            assert said in text and row["p_holm"] < 0.05
            found.append(said)
    assert len(found) == 2
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert found[0][:-1] in readme
    stored = json.loads(
        (ROOT / "benchmarks" / "inductive_bias_photographs.json").read_text()
    )
    mean = {(row["model"], row["images"]): row["mean"] for row in stored["rows"]}
    for size in (100, 300):
        values = (f"{mean[m, size]:.1f} %" for m in ("ViT", "CNN", "CNN, shuffled"))
        assert f"| {size} | {' | '.join(values)} |" in text
    decided = []
    for row in stored["comparisons"]:
        low, high = row["interval"]
        said = f"{row['difference']:+.1f} points ({low:+.1f} … {high:+.1f}; Holm p"
        if row["second"] == "ViT" and row["images"] == 300:
            assert f"{said} {row['p_holm']:.2g}" in text
        if row["p_holm"] < 0.05:
            decided.append((row["first"], row["second"], row["images"]))
    assert decided == [("CNN", "ViT", 300)]


def test_results_of_the_bench_are_written_from_the_stored_runs(tmp_path, monkeypatch):
    words = ["results.py", "--output", str(tmp_path / "RESULTS.md")]
    monkeypatch.setattr(sys, "argv", words)
    results.main()
    stored = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    assert (tmp_path / "RESULTS.md").read_text() == stored, "run `make bench`"


def test_the_stored_difficulty_is_quoted():
    text = MEASURED.read_text(encoding="utf-8")
    stored = json.loads((ROOT / "benchmarks" / "rendered_difficulty.json").read_text())
    runs = stored["transformer"]
    alone = [stored[key] for key in ("baseline", "mean_colour", "colour_histogram")]
    for share in (*alone, min(runs), max(runs)):
        assert f"{100 * share:.1f} %" in text
    assert f"| {100 * sum(runs) / len(runs):.1f} % |" in text
    # "no clear difference": neither is a standard error of 75 images above the other.
    assert abs(stored["colour_histogram"] - stored["transformer_mean"]) < 0.056
    assert stored["mean_colour"] < 0.6 and len(runs) >= 5
    assert 0.5 <= min(runs) and max(runs) <= 0.8


def test_pages_of_a_run_link_to_pages_and_fetch_nothing(tmp_path):
    text = "[a](01_b.ipynb) [g](GLOSSARY.md) [web](https://x.org/01_b.ipynb) $x_p$ `$5`"
    text += " [e](exercises/01_b.ipynb)"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    write_page(notebook, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert 'href="01_b.html"' in page and 'href="GLOSSARY.html"' in page
    assert 'href="https://x.org/01_b.ipynb"' in page
    assert 'href="../notebooks/exercises/01_b.ipynb"' in page
    assert "<msub><mi>x</mi><mi>p</mi></msub>" in page and "$5" in page
    assert "<script" not in page and 'src="http' not in page


def test_a_kernel_that_does_not_start_is_a_line_of_the_table(tmp_path, monkeypatch):
    def execute(client):
        raise RuntimeError("Kernel didn't respond in 180 seconds\nand more")

    monkeypatch.setattr(run_course.NotebookClient, "execute", execute)
    lesson = ROOT / "notebooks" / "04_class_token.ipynb"
    _, result = run_course.run(lesson, tmp_path, timeout=5)
    assert result.startswith("failed: no kernel") and "180 seconds" in result
    assert "\n" not in result and (tmp_path / "04_class_token.html").exists()


def test_the_page_of_a_run_keeps_the_lessons_of_earlier_ones(tmp_path):
    for name in ("04_class_token", "08_mlp"):
        lesson = (ROOT / "notebooks" / f"{name}.ipynb").read_bytes()
        (tmp_path / f"{name}.ipynb").write_bytes(lesson)
    run_course.write_index(tmp_path, {"08_mlp": [3.0, "failed: a < b"]})
    run_course.write_index(tmp_path, {"04_class_token": [2.0, "ok"]})
    page = run_course.write_index(tmp_path, {"08_mlp": [1.25, "ok"]}).read_text()
    assert page.index('href="04_class_token.html"') < page.index('href="08_mlp.html"')
    assert "· ran in 2.0 s<" in page and "· ran in 1.2 s<" in page
    assert page.count('<p class="run">') == 2 and "failed:" not in page
    for source in re.findall(r'<img src="([^"]+)"', page):
        assert (tmp_path / source).exists()
    assert page.count("<img ") == 2
    (tmp_path / "08_mlp.ipynb").unlink()  # a lesson that is no more
    assert "08_mlp" not in run_course.write_index(tmp_path, {}).read_text()


def test_badges_rewrite_every_address(tmp_path):
    (tmp_path / "notebooks").mkdir()
    names = ["CITATION.cff", "README.md", "CHANGELOG.md", "pyproject.toml"]
    names.append("notebooks/04_class_token.ipynb")
    for name in names:
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    now, branch = address_of(ROOT)
    changed = rewrite(tmp_path, "someone/vit-course", "spring")
    assert {path.relative_to(tmp_path).as_posix() for path in changed} == set(names)
    for path in changed:
        text = path.read_text(encoding="utf-8")
        assert "someone/vit-course" in text
        assert now not in text
        assert not re.search(rf"vit-course(/blob|/tree)?/{branch}\b", text)
    assert "/gh/someone/vit-course/spring?" in (tmp_path / "README.md").read_text()
    lesson = json.loads((tmp_path / names[-1]).read_text())
    set_up = "".join(lesson["cells"][1]["source"])
    assert 'url, branch = "https://github.com/someone/vit-course", "spring"' in set_up
    assert rewrite(tmp_path, "someone/vit-course", "spring") == []
    rewrite(tmp_path, now, branch)
    for name in names:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
    with pytest.raises(ValueError, match="owner/name"):
        rewrite(tmp_path, "no-slash")
    with pytest.raises(ValueError, match="without slashes"):
        rewrite(tmp_path, "owner/name", "feature/x")


def test_the_set_up_cell_is_the_same_everywhere_and_clones_the_branch():
    cells = set()
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        sources = (cell.source for cell in nbformat.read(path, as_version=4).cells)
        cells.add(next(source for source in sources if "google.colab" in source))
    (cell,) = cells
    assert "google.colab" in cell and '"--depth", "1", "-b", branch' in cell
