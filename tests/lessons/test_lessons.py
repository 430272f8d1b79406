"""Every lesson is stored as one run, says what it must, and points at what exists."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.name[0].isdigit()]
# Lessons that export nothing: another part does.
EXPORT_NOTHING = {
    "00_replicating_a_paper",
    "06b_masks",
    "07_multihead_self_attention",
    "07b_norms_heads_memory",
    "09b_depth_and_cost",
    "09c_whose_pattern",
    "10b_shapes_memory_masks",
    "14c_replication_report",
    "14d_memory_and_speed",
    "15d_fewer_tokens",
    "A1_rendered_foods",
}
# Lessons that add to the module of their first part, where its imports stand.
GO_ON = {
    "05b_larger_images",
    "05c_sinusoidal_positions",
    "11b_when_training_fails",
    "13c_relevance",
}
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"][
    "Repository"
]


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [c for c in read(path).cells if c.cell_type == "code"]


def markdown_cells(path):
    return [c.source for c in read(path).cells if c.cell_type == "markdown"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def test_all_lessons_of_the_table_are_there():
    parts = {}  # by number: "" for its first part; a goes on, b, c, ... can wait
    for path in LESSONS:
        number, letter = re.match(r"(\d\d)([a-z]?)_", path.name).groups()
        parts.setdefault(number, []).append(letter)
    assert list(parts) == [f"{i:02}" for i in range(len(parts))]
    for letters in parts.values():
        others = "abcdef" if "a" in letters else "bcdef"
        assert letters == ["", *others][: len(letters)]


def test_stored_as_one_run_from_top_to_bottom(notebook):
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            if output.output_type == "execute_result":
                assert output.execution_count == cell.execution_count
        assert "execution" not in cell.metadata, "stored with timestamps"


def test_errors_are_announced(notebook):
    for cell in code_cells(notebook):
        failed = any(output.output_type == "error" for output in cell.outputs)
        announced = "raises-exception" in cell.metadata.get("tags", [])
        assert failed == announced, cell.source


def test_nothing_is_skipped_or_printed_to_stderr(notebook):
    for cell in code_cells(notebook):
        assert "nbval-skip" not in cell.metadata.get("tags", []), cell.source
        assert not cell.source.endswith(";"), "nbval shows what a semicolon hides"
        for output in cell.outputs:
            assert output.get("name") != "stderr", output.text


def test_an_ignored_output_comes_with_an_assertion(notebook):
    """In the cell itself or in the next one; nbval reports it where it fails."""
    cells = code_cells(notebook)
    for cell, following in zip(cells, cells[1:] + [None], strict=True):
        if "nbval-ignore-output" in cell.metadata.get("tags", []):
            sources = [c.source for c in (cell, following) if c]
            assert any("assert" in source for source in sources), cell.source


def test_set_up_cell_and_badge_name_the_repository(notebook):
    set_up = code_cells(notebook)[0].source
    assert set_up == code_cells(NOTEBOOKS[0])[0].source, "the set-up cell differs"
    assert f'url, branch = "{REPOSITORY}", ' in set_up
    short = REPOSITORY.removeprefix("https://github.com/")
    branch = re.search(r'url, branch = "[^"]+", "([^"]+)"', set_up).group(1)
    badge = f"https://colab.research.google.com/github/{short}/blob/{branch}/notebooks/"
    assert f"[Open in Colab]({badge}{notebook.name})" in markdown_cells(notebook)[0]


def test_the_first_cells_export_and_show_where_we_are(notebook):
    first, second = (cell.source for cell in code_cells(notebook)[1:3])
    if notebook.stem in EXPORT_NOTHING:
        second = first
        assert not any("#| " in cell.source for cell in code_cells(notebook))
    elif notebook.stem in GO_ON:
        second = first
        assert first.startswith("#| default_exp ") and "#| export" not in first
    else:
        assert first.startswith("#| default_exp ")
        assert "#| export" in first
    assert "torch" in second
    assert "torch.__version__" in second or "__version__" in second
    # 14b is about processes, each with a whole model: it draws their step instead.
    show = "show_drawing(" if notebook.stem.startswith("14b") else "show_model("
    shown = any(show in cell.source for cell in code_cells(notebook)[:5])
    # Appendix A1 is about drawing images, before any part of the model.
    assert shown != (notebook.stem == "A1_rendered_foods")


def test_set_up_and_imports_are_folded(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    [start] = [i for i, c in enumerate(cells) if c.source.startswith("## Where we are")]
    for cell in cells[:start]:
        if cell.cell_type == "code":
            assert cell.metadata["jupyter"] == {"source_hidden": True}, cell.source
            assert "hide-input" in cell.metadata["tags"]


def test_every_picture_has_an_alt_text(notebook):
    for cell in read(notebook).cells:
        assert not re.search(r"!\[\s*\]\(|<img(?![^>]*alt=)", cell.source)
        for output in cell.get("outputs", []):
            for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
                alt = output.metadata[kind]["alt"]
                assert len(alt) > 10, cell.source


def test_anatomy(notebook):
    cells = markdown_cells(notebook)
    text = "\n".join(cells)
    for heading in ("Where we are", "What you have built", "Three questions"):
        assert f"## {heading}\n" in text
    assert "## Exercises\n" in text and "## Read more\n" in text
    assert "Prove" in text and "## Break it" in text
    questions = [cell for cell in cells if "<details>" in cell]
    assert len(questions) == 3
    for cell in questions:
        inside = cell[cell.index("<details>") : cell.index("</details>")]
        assert "\n\n" not in inside, "a blank line shows the answer open"
        assert "`" not in inside, "markdown is not rendered inside <details>"


def test_headings_are_in_order(notebook):
    text = "\n".join(markdown_cells(notebook))
    levels = [
        len(m)
        for m in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    ]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))


def test_prose_is_short_and_plain(notebook):
    for cell in markdown_cells(notebook):
        text = re.sub(
            r"\$\$.*?\$\$|\$.*?\$|```.*?```|\]\(.*?\)|\|", " ", cell, flags=re.S
        )
        assert len(text.split()) <= 150, cell[:80]
        assert not re.search(r"\b(amazing|simply|just)\b", text, re.IGNORECASE), cell
        assert not re.search("TO" + "DO|FIX" + "ME", cell)


def test_no_path_of_a_machine(notebook):
    text = notebook.read_text(encoding="utf-8")
    places = (str(ROOT), str(Path.home()), "site-packages", "ipykernel_", "C:\\\\")
    assert not [place for place in places if place in text]


def test_links_between_lessons_lead_somewhere(notebook):
    for target in re.findall(
        r"\]\((?!http|#)([^)]+)\)", "\n".join(markdown_cells(notebook))
    ):
        assert (notebook.parent / target).is_file(), target


def test_size(notebook):
    assert notebook.stat().st_size < 1_500_000


def test_lessons_import_only_what_learners_have(notebook):
    allowed = {"torch", "torchvision", "matplotlib", "numpy", "PIL", "torchinfo"}
    allowed |= {
        "going_modular",
        "helper_functions",
        "vit_course",
        "IPython",
        "tqdm",
        "safetensors",
    }
    allowed |= {"requests", "filelock", "onnx", "onnxruntime", "timm"}
    standard = set(sys.stdlib_module_names)
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed | standard, name


def test_modules_import_only_earlier_modules():
    """A module may use what its lesson and earlier ones built, and nothing later."""
    order = {}
    for path in NOTEBOOKS:
        number = re.split("[a-z_]", path.name)[0]  # the parts of a lesson are one
        for cell in code_cells(path):
            found = re.search(r"#\| (?:default_exp|export) ([\w.]+)", cell.source)
            if found:
                order.setdefault(found.group(1), number)
    assert order, "no module is exported"
    for name, number in order.items():
        path = (ROOT / "going_modular").joinpath(*name.split("."))
        source = path.with_suffix(".py").read_text(encoding="utf-8")
        for used in re.findall(r"from going_modular\.([\w.]+) import", source):
            used = used if used in order else f"{used}.__init__"
            assert order[used] <= number, f"{name} imports {used}"


def test_glossary_covers_the_terms_of_the_lessons():
    glossary = (ROOT / "notebooks" / "GLOSSARY.md").read_text(encoding="utf-8").lower()
    terms = """patch, patch embedding, class token, position embedding, token, encoder,
        residual connection, logits, activation, parameter, batch, normalise,
        validation, gradient, buffer, dropout, head, query, key, value, score, softmax,
        mask, causal mask, padding, cross-attention, decoder, saturated, recurrence,
        LayerNorm, BatchNorm, fused kernel, context manager, GELU, ReLU, hidden unit,
        pre-norm, post-norm, DropPath, multiply-adds, meta device, cross-entropy, AdamW,
        checkpoint, clipping, confusion matrix, fine-tuning, label smoothing,
        accumulation, calibration, attention rollout, state dict, Transformer, loss,
        accuracy, kernel, linear layer, forward pass, backbone, feature,
        residual stream, skip connection, rank collapse, receptive field, dot product,
        standard deviation, optimizer, learning rate, overfitting, dataset,
        inductive bias, attention weights, attention map, prediction, prepend,
        worker process"""
    terms = [" ".join(term.split()).lower() for term in terms.split(",")]
    missing = [term for term in terms if f"| {term} |" not in glossary]
    assert not missing
