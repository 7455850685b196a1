from __future__ import annotations

from pathlib import Path

import pytest

from cacheproxy.config import files
from cacheproxy.config.files import Document, dotted, read


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder / "main.toml"


def said(document: Document, folder: Path) -> list[str]:
    return [str(problem).replace(f"{folder}/", "") for problem in document.problems]


def test_included_tables_add_to_those_of_the_main_file(tmp_path: Path) -> None:
    main = written(
        tmp_path,
        {
            "main.toml": 'include = ["conf.d/*.toml"]\n[a]\nx = 1',
            "conf.d/2.toml": "[b]\nz = 3",
            "conf.d/1.toml": "[a]\ny = 2",
        },
    )
    document = read(main)
    assert document.problems == []
    assert document.values == {"a": {"x": 1, "y": 2}, "b": {"z": 3}}
    assert str(document.place(("a", "y"))) == f"{tmp_path}/conf.d/1.toml:2"
    assert str(document.place(("b",))) == f"{tmp_path}/conf.d/2.toml:1"


def test_included_arrays_of_tables_come_after_those_of_the_main_file(tmp_path: Path) -> None:
    main = written(
        tmp_path,
        {
            "main.toml": 'include = ["a.toml", "b.toml"]\n[[u]]\nx = 1\n[[u]]\nx = 2',
            "a.toml": "[[u]]\nx = [3]",
            "b.toml": "\n[[u]]\nx = 4",
        },
    )
    document = read(main)
    assert [table["x"] for table in document.values["u"]] == [1, 2, (3,), 4]
    assert str(document.place(("u", 1, "x"))) == f"{main}:5"
    assert str(document.place(("u", 2, "x", 0))) == f"{tmp_path}/a.toml:2"
    assert str(document.place(("u", 3))) == f"{tmp_path}/b.toml:2"


def test_a_key_that_two_files_set_names_both(tmp_path: Path) -> None:
    main = written(
        tmp_path,
        {"main.toml": 'include = ["a.toml"]\n[a]\nx = 1', "a.toml": "c = 1\n\n[a]\ny = 1\nx = 2"},
    )
    assert said(read(main), tmp_path) == ["a.toml:5: a.x: is set in main.toml:3 already; keep one of the two"]


def test_a_table_and_an_array_do_not_mix(tmp_path: Path) -> None:
    main = written(tmp_path, {"main.toml": 'include = ["a.toml"]\n[a]', "a.toml": "[[a]]"})
    assert said(read(main), tmp_path) == ["a.toml:1: a: is set in main.toml:2 already; keep one of the two"]


def test_a_pattern_may_match_nothing_and_a_name_may_not(tmp_path: Path) -> None:
    main = written(tmp_path, {"main.toml": 'include = [\n"conf.d/*.toml",\n"a.toml"]'})
    assert said(read(main), tmp_path) == [
        'main.toml:3: include[1]: there is no "a.toml" beside main.toml; create it or take it out'
    ]


def test_an_include_may_be_absolute(tmp_path: Path) -> None:
    main = written(tmp_path, {"main.toml": f'include = ["{tmp_path}/a.toml"]', "a.toml": "x = 1"})
    assert read(main).values == {"x": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('include = "a.toml"', 'include: must be a list of file names, as ["conf.d/*.toml"]'),
        (
            "include = [1]",
            'include[0]: must be a file name or a pattern in quotes, as "conf.d/*.toml"',
        ),
    ],
)
def test_an_include_that_is_no_list_of_names_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    assert said(read(written(tmp_path, {"main.toml": text})), tmp_path) == [f"main.toml:1: {problem}"]


def test_only_the_main_file_includes(tmp_path: Path) -> None:
    main = written(tmp_path, {"main.toml": 'include = ["a.toml"]', "a.toml": 'include = ["b.toml"]'})
    assert said(read(main), tmp_path) == [
        "a.toml:1: include: only the main file includes others; write it there"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = 1\nb = \n", "main.toml:2: is not TOML: Invalid value, at column 5"),
        ("a = 1\na = 2\n", "main.toml:2: is not TOML: Cannot overwrite a value, at column 6"),
        ("a = [\n1,\n", "main.toml:3: is not TOML: Invalid value, at the end of the file"),
    ],
)
def test_text_that_is_not_toml_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    assert said(read(written(tmp_path, {"main.toml": text})), tmp_path) == [problem]


def test_a_file_in_another_encoding_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "main.toml").write_bytes(b"a = 1\nb = '\xe4'\n")
    assert said(read(tmp_path / "main.toml"), tmp_path) == [
        "main.toml:2: is not UTF-8; save it in that encoding"
    ]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert said(read(tmp_path / "main.toml"), tmp_path) == [
        "main.toml:1: cannot be read: No such file or directory"
    ]


def test_a_folder_is_not_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "main.toml").mkdir()
    assert said(read(tmp_path / "main.toml"), tmp_path) == ["main.toml:1: cannot be read: Is a directory"]


def test_a_file_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SIZE_LIMIT", 1 << 20)
    (tmp_path / "main.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    assert said(read(tmp_path / "main.toml"), tmp_path) == ["main.toml:1: is larger than 1 MiB"]


def test_a_key_that_is_missing_is_told_at_the_table_around_it(tmp_path: Path) -> None:
    document = read(written(tmp_path, {"main.toml": "\n[[u]]\nx = 1"}))
    assert document.place(("u", 0, "y", "z")).line == 2
    assert document.place(("v",)).line == 1


def test_a_path_is_written_as_people_do() -> None:
    assert dotted(("upstream", 0, "fresh", 1, "for")) == "upstream[0].fresh[1].for"


def test_a_file_is_included_once_and_the_main_file_not_at_all(tmp_path: Path) -> None:
    main = written(
        tmp_path, {"main.toml": 'include = ["*.toml", "a.toml"]\n[a]\nx = 1', "a.toml": "[b]\ny = 1"}
    )
    document = read(main)
    assert document.problems == []
    assert document.values == {"a": {"x": 1}, "b": {"y": 1}}
