import made_up

from medistill.report.markdown import comparison_table


def test_every_row_is_a_line_of_the_table() -> None:
    table, _, _ = comparison_table(made_up.comparison(*made_up.COMPARED)).partition("\n\nHarmonic mean: of each class")
    about, empty, head, rule, *rows = table.splitlines()
    assert about == "a table: 400 test images, mean ± sd of 5 networks over seeds 0, 1."
    assert not empty
    assert {line.count("|") for line in (head, rule, *rows)} == {12}
    assert head.split(" | ")[6] == "against random real images"
    assert len(rows) == len(made_up.COMPARED)
    assert rows[3] == (
        "| BYOL, fine-tuned | all, unlabelled | 40 | 72.0 ± 1.2 | 72.0 ± 1.2 | 69.0 to 75.0 "
        "| +10.0 to +14.0 | 72.0 ± 1.2 | 72.0 ± 1.2 | 40.0 kB | 3.2 s |"
    )


def test_every_class_has_a_column_with_intervals() -> None:
    rows = (*made_up.COMPARED, made_up.compared("random", 0.5, 5))
    _, _, rest = comparison_table(made_up.comparison(*rows)).partition("\n\nClass by class")
    _, found, not_taken, *_ = rest.split("\n\n")
    head, rule, *lines = found.splitlines()
    assert (head, rule) == ("| sensitivity | normal | pneumonia |", "| --- | ---: | ---: |")
    assert lines[0] == "| random real images | 60 (31 to 32) | 60 (31 to 32) |"
    assert lines[2] == "| BYOL, fine-tuned · all, unlabelled | 72 (31 to 32) | 72 (31 to 32) |"
    assert not_taken.splitlines()[2] == "| random real images | 60 (41 to 42) | 60 (41 to 42) |"
    assert len(lines) == len(made_up.COMPARED) - 1, "neither the commonest class nor a smaller budget"


def test_a_class_that_nobody_was_judged_on_has_no_figure() -> None:
    row = made_up.compared("random", 0.6)
    absent = row.model_copy(update={"sensitivity": {"normal": row.sensitivity["normal"]}})
    assert "\n| random real images | 60 (31 to 32) |  |\n" in comparison_table(made_up.comparison(absent))


def test_what_images_take_to_send_stands_below() -> None:
    lines = comparison_table(made_up.comparison(*made_up.COMPARED)).splitlines()[-5:]
    assert lines == [
        "| images of | images | bytes | of all | at 1 Mbit/s | at 10 Mbit/s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| pruned trajectory matching | 40 | 40.0 kB | 2 % | 0.3 s | 32 ms |",
        "| distribution matching (DM) | 40 | 5.0 MB | 250 % | 40.0 s | 4.0 s |",
        "| source files, all splits |  | 37.0 MB | 1,850 % | 4 min 56 s | 29.6 s |",
    ]


def test_a_reader_learns_that_skd_is_a_reading() -> None:
    lines = comparison_table(made_up.comparison(*made_up.COMPARED, made_up.compared("skd", 0.5))).splitlines()
    assert [line for line in lines if "arXiv 2206.03009" in line and line.startswith("SKD is our reading")]
    assert "arXiv" not in comparison_table(made_up.comparison(*made_up.COMPARED))


def test_names_bring_no_markup() -> None:
    text = comparison_table(made_up.comparison(made_up.compared("<b>|*x*", 0.5), title="[a](b)"))
    assert "&#60;b&#62;&#124;&#42;x&#42;" in text
    assert "[a]" not in text
